"""Ctrl-C and SIGTERM end a worker cleanly, without a traceback."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.rabbitmq import Broker

RUN = """
    import asyncio, sys
    from rateway_client import Event, Worker

    async def main():
        async with Worker(sys.argv[1], queue="q") as worker:
            @worker.on("MESSAGE_CREATE")
            async def message(event: Event) -> None:
                pass
            asyncio.get_running_loop().call_soon(lambda: print("listening", flush=True))
            await worker.run()
        print("ended", flush=True)

    asyncio.run(main())
"""
EVENTS = """
    import asyncio, sys
    from rateway_client import Worker

    async def main():
        async with Worker(sys.argv[1], events=["MESSAGE_CREATE"], queue="q") as worker:
            asyncio.get_running_loop().call_soon(lambda: print("listening", flush=True))
            async for event in worker.events():
                await event.done()
        print("ended", flush=True)

    asyncio.run(main())
"""
TWO = """
    import asyncio, sys
    from rateway_client import Worker

    begun = []

    def begins():
        begun.append(None)
        if len(begun) == 2:
            print("listening", flush=True)

    async def serve(name):
        async with Worker(sys.argv[1], queue=name) as worker:
            @worker.on("MESSAGE_CREATE")
            async def message(event):
                pass
            asyncio.get_running_loop().call_soon(begins)
            await worker.run()

    async def main():
        both = [asyncio.create_task(serve(name)) for name in "ab"]
        await asyncio.gather(*both)
        print("ended", flush=True)

    asyncio.run(main())
"""
OWN = """
    import asyncio, signal, sys
    from rateway_client import Worker

    async def main():
        async with Worker(sys.argv[1], queue="q") as worker:
            @worker.on("MESSAGE_CREATE")
            async def message(event):
                pass
            def own():
                print("the application's own handler", flush=True)
                worker.stop()
            for each in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(each, own)
            asyncio.get_running_loop().call_soon(lambda: print("listening", flush=True))
            await worker.run()
        print("ended", flush=True)

    asyncio.run(main())
"""


@contextmanager
def started(code: str, broker: Broker) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), broker.uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it does not begin"
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [RUN, EVENTS, TWO], ids=["run", "events", "two workers"])
def test_a_signal_ends_a_worker_without_a_traceback(
    code: str, number: signal.Signals, broker: Broker
) -> None:
    with started(code, broker) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=90)
    assert (process.returncode, out, err) == (0, "ended\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_of_the_applications_own_stays(number: signal.Signals, broker: Broker) -> None:
    with started(OWN, broker) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=90)
    assert (process.returncode, out, err) == (0, "the application's own handler\nended\n", "")
