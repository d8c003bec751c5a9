"""The broker's password changes while the gateway runs: it is read again from its file, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.witness import witness
from tests.rabbitmq import Broker


@pytest.mark.checklist("K41")
@pytest.mark.parametrize("file_first", [True, False], ids=["the file first", "RabbitMQ first"])
def test_a_password_that_is_changed_at_rabbitmq_costs_a_reconnect_and_no_event(
    tmp_path: Path, broker: Broker, file_first: bool
) -> None:
    user = f"gateway-of-{broker.vhost}"
    file = tmp_path / "amqp-uri"

    def write(password: str) -> None:
        vhost = quote(broker.vhost, safe="")
        file.write_text(f"amqp://{user}:{password}@127.0.0.1:{broker.port}/{vhost}\n")

    async def change(password: str) -> None:
        await broker.api("PUT", f"users/{user}", {"password": password, "tags": ""})

    async def main() -> None:
        await change("sw0rdfish-1")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await broker.api("PUT", f"permissions/{quote(broker.vhost, safe='')}/{user}", everything)
        write("sw0rdfish-1")
        async with stage(
            tmp_path, broker, shards=1, guilds=6, members=3, start=False, AMQP_URI_FILE=str(file)
        ) as it:
            del it.gateway.environment["AMQP_URI"]
            await it.gateway.start()
            await it.ready()
            await it.events(200)
            await it.all_arrived()
            if file_first:
                write("sw0rdfish-2")
                await change("sw0rdfish-2")
                await broker.close_connections()
            else:
                await change("sw0rdfish-2")
                await broker.close_connections()
                await it.gateway.until(
                    lambda status: (
                        not status["clusters"][0]["publisher"]["connected"]
                        and "refused" in status["clusters"][0]["publisher"]["why"].lower()
                    )
                )
                await it.events(200)
                write("sw0rdfish-2")
            await it.gateway.until(lambda status: status["clusters"][0]["publisher"]["connected"])
            await it.events(200)
            await it.all_arrived()
            async with witness(broker, names=frozenset()) as worker:
                status, _ = await worker.ask(1, "cache", {"type": "Stats", "arguments": []})
                assert status == "ok"
            assert it.count("identify") == 1 and it.count("resume") == 0
            assert "sw0rdfish" not in it.gateway.log.read_text()

    try:
        run(main())
    finally:
        run(broker.api("DELETE", f"users/{user}"), timeout=120)
