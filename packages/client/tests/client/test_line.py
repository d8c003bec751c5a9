"""The client's connection, where there is no broker."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
import warnings
from typing import NoReturn

import pytest
from rateway_client.errors import BrokerUnavailable
from rateway_client.line import Line
from rateway_client.sound_frames import Unreadable

from tests.aio import run


def test_dials_that_failed_leave_nothing_behind_whichever_thread_collects_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]

        def never(*_facts: object) -> NoReturn:
            raise AssertionError("there is no broker")

        async def main() -> None:
            line = Line(
                f"amqp://guest:guest@127.0.0.1:{port}/",
                name="test",
                ssl_context=None,
                opened=never,
                lost=never,
                unreadable=Unreadable(time.monotonic),
            )
            running = asyncio.create_task(line.run())
            with pytest.raises(BrokerUnavailable, match="refused"):
                await line.began(0.5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            # A thread has no running loop, so that an object's last words there have nobody to await them.
            await asyncio.to_thread(gc.collect)

        # pytest keeps each record, aiormq's hold the failures, and these all that they were about.
        caplog.set_level(logging.CRITICAL + 1, logger="aiormq")
        gc.disable()
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                run(main())
        finally:
            gc.enable()
        assert [str(each.message) for each in heard if "never awaited" in str(each.message)] == []
