"""No connection is opened to where the token must not go, whoever names it."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from rateway.runtime.runner.dialer import Dialer
from rateway.session import actions
from rateway.session.actions import State, StoredSession
from rateway.transports.websocket import DialError
from rateway_protocol.discord.hosts import TokenHosts
from tests.session.driver import Driver, options
from tests.transports.test_websocket_hostile import Handler

from tests.aio import run

API = "https://discord.test/api/v10"
FOREIGN = ["wss://evil.example", "ws://resume.discord.test", "wss://discord.test.evil.example"]


@pytest.mark.checklist("K58")
def test_a_host_that_gets_no_token_is_not_even_dialled() -> None:
    async def scenario() -> tuple[str, int, list[str]]:
        dialled = 0

        def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal dialled
            dialled += 1
            writer.close()

        server = await asyncio.start_server(seen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dialer = Dialer(
            user_agent="test", max_message_bytes=1, ssl_context=lambda: None, token_hosts=TokenHosts(API)
        )
        with pytest.raises(DialError) as caught:
            await dialer.dial(f"ws://127.0.0.1:{port}/?v=10", Handler(), resuming=True, failures=0)
        return caught.value.reason, dialled, dialer.notes()

    reason, dialled, notes = run(scenario())
    assert "the token is not sent" in reason and "GATEWAY_HOSTS" in reason
    assert dialled == 0
    assert notes == [reason]


@pytest.mark.checklist("K58")
@pytest.mark.parametrize("url", FOREIGN)
def test_a_session_whose_address_is_foreign_is_resumed_at_the_main_one(url: str) -> None:
    driver = Driver(settings=options(address_fault=TokenHosts(API).fault))
    driver.start()
    driver.reconnected()
    driver.ready(url=url)
    assert driver.state() is State.LIVE
    assert any("not used" in note.text for note in driver.all(actions.Note) if note.level == "error")
    driver.fact("closed", 4000, driver.now)
    driver.until(State.CONNECTING)
    assert urlsplit(driver.last(actions.Connect).url).hostname == "gateway.discord.test"
    driver.reconnected()
    driver.resumed()
    assert driver.all(actions.SessionLost) == []


@pytest.mark.checklist("K58")
@pytest.mark.parametrize("url", FOREIGN)
def test_a_stored_session_whose_address_is_foreign_is_resumed_at_the_main_one(url: str) -> None:
    driver = Driver(
        StoredSession("stored", url, 9), settings=options(address_fault=TokenHosts(API).fault)
    ).start()
    assert urlsplit(driver.last(actions.Connect).url).hostname == "gateway.discord.test"
    assert driver.last(actions.Connect).resuming
