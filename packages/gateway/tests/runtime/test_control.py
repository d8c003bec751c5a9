"""The words of the control socket: carried out, or answered with what there is; none of them makes the gateway fail."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.runtime.answered import Answered
from rateway.runtime.control import Control
from rateway.runtime.gateway import Gateway
from rateway.runtime.monitoring.loop_lag import LoopLag

from tests.aio import run


class OneShard:
    """A gateway that runs shard 0 of cluster 1, as far as requests go."""

    async def restart_shard(self, shard_id: int, *, new_session: bool) -> Answered:
        return Answered(shard_id == 0, f"shard {shard_id}, new session: {new_session}")

    async def drain(self, cluster: int) -> int | None:
        return 0 if cluster == 1 else None

    def words_for_clusters(self) -> str:
        return "there is cluster 1"


def answer(*words: str) -> dict[str, Any]:
    control = Control(cast(Gateway, OneShard()), LoopLag())
    return cast(dict[str, Any], run(control.answer(list(words))))


def test_a_shard_is_restarted_and_a_cluster_drained() -> None:
    assert answer("restart-shard", "0") == {"ok": "shard 0, new session: False"}
    assert answer("restart-shard", "0", "new-session") == {"ok": "shard 0, new session: True"}
    assert "settled" in answer("drain", "1")["ok"]
    assert "there is cluster 1" in answer("drain", "7")["error"]


@pytest.mark.checklist("K71")
@pytest.mark.parametrize(
    "number", ["²", "①", "-1", "+1", "1.0", "1e3", "0x1", "", "9" * 10, "9" * 4_000, "zero", "１" * 20]
)
@pytest.mark.parametrize("request_words", [("restart-shard",), ("drain",)])
def test_what_is_no_number_of_a_shard_or_cluster_is_an_unknown_request(
    request_words: tuple[str, ...], number: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert "there are: status, restart-shard N" in answer(*request_words, number)["error"]
    assert caplog.records == []


@pytest.mark.checklist("K71")
@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["restart-shard", "drain", "new-session", "0", "1"]),
        max_size=5,
    ).filter(lambda words: words[:1] != ["status"])
)
def test_any_words_are_answered_with_ok_or_an_error(words: list[str]) -> None:
    found = answer(*words)
    assert set(found) in ({"ok"}, {"error"}) and len(str(found)) < 500
