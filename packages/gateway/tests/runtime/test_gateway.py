"""The lives of a gateway: each with its layout, and one end to all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rateway.config import load
from rateway.fleet.choice import Choice
from rateway.fleet.layout import Layout
from rateway.runtime.fleet import opening
from rateway.runtime.gateway import Gateway
from rateway.transports.state import StateDir
from tests.proxy.virtual_time import pass_time, run

SETTINGS = {"DISCORD_TOKEN": "MTIz.a.b", "INTENTS": "1", "AMQP_URI": "amqp://localhost/", "FLEET": "bot"}


class Held:
    """What a gateway runs in one life. It takes a second to wind down."""

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def wind_down(self, *, end_sessions: bool, to: Any) -> None:
        await pass_time(1)

    def close(self) -> None: ...


class Member:
    """A member of a fleet that always has the same layout for it."""

    permits = SimpleNamespace()
    part = None

    def identity(self) -> None: ...

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def choose(self) -> Choice:
        return Choice(Layout(4, 2), "wss://gateway", "four")

    def begin_leaving(self) -> dict[int, str]:
        return {}

    def ended(self) -> None: ...

    async def leave(self) -> None: ...


@pytest.mark.parametrize(
    ("words", "lives", "has_ended"),
    [
        (["stop"], 1, True),
        (["layout"], 2, False),
        # Each while it winds down for the other.
        (["stop", "layout"], 1, True),
        (["layout", "stop"], 1, True),
    ],
)
def test_a_stop_ends_the_gateway_whatever_else_ends_a_life_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], lives: int, has_ended: bool
) -> None:
    async def scene() -> None:
        begun: list[Held] = []

        def begin(*args: Any) -> Held:
            begun.append(Held())
            return begun[-1]

        with StateDir.open(tmp_path / "state") as state:
            monkeypatch.setattr(opening, "open_member", lambda *args: Member())
            gateway = Gateway(load(None, SETTINGS), state)
            monkeypatch.setattr(gateway, "_make_held", begin)
            running = asyncio.ensure_future(gateway.run())
            await pass_time(1)
            for word in words:
                (gateway.stop if word == "stop" else gateway.change_layout)()
                await pass_time(0.5)
            await pass_time(10)
            found = running.done()
            running.cancel()
            await asyncio.wait([running])
        assert (len(begun), found) == (lives, has_ended)

    run(scene())
