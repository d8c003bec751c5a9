"""The start: what it chooses where the settings leave it open, and what it says of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from rateway.config import load
from rateway.runtime.startup import Identity, choose
from rateway.session.compression import compression_of
from rateway.transports.rest import DiscordRest, GatewayBot
from rateway.transports.state import StateDir

from tests.aio import run

ENVIRON = {"DISCORD_TOKEN": "MTA.x.y", "INTENTS": "1", "AMQP_URI": "amqp://localhost/", "EXTRA_SHARDS": "0"}


class Discord:
    """Recommends a number of shards."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    async def gateway_bot(self) -> GatewayBot:
        return GatewayBot("wss://gateway.discord.gg", self.shards, 1000, 1000, 0, 1)


def compression_lines(folder: Path, caplog: pytest.LogCaptureFixture, shards: int, **more: str) -> list[str]:
    """What a start with a bot of so many shards says of its compression."""
    caplog.clear()
    caplog.set_level("INFO")
    settings = load(None, ENVIRON | more)
    rest = cast("DiscordRest", Discord(shards))
    with StateDir.open(folder) as state:
        run(choose(settings, state, rest, Identity.of(settings, state)))
    records: list[Any] = caplog.records
    return [each.getMessage() for each in records if getattr(each, "action", "") == "compression"]


def test_many_shards_take_zlib_where_nothing_is_said_and_the_start_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = compression_lines(tmp_path / "many", caplog, 101)
    assert "zlib-stream" in line and "101 shards" in line
    assert compression_lines(tmp_path / "few", caplog, 100) == []
    assert compression_lines(tmp_path / "said", caplog, 101, COMPRESSION="zstd-stream") == []
    assert [compression_of(None, shards) for shards in (1, 100, 101)] == ["zstd-stream"] * 2 + ["zlib-stream"]
    assert compression_of("zstd-stream", 5_000) == "zstd-stream"
