"""`rateway check` says what a start then does: what it resumes, in which layout, how many identifies it sends.

A gateway runs, is stopped, a setting (or Discord) changes, check is asked, and the gateway starts again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rateway.commands import check
from rateway.commands.plan import Plan
from rateway.config import load
from rateway_simulator.world.people import TOKEN

from tests.aio import run
from tests.e2e.harness import Stage, stage
from tests.e2e.witness import all_live
from tests.rabbitmq import Broker

# Of the same bot: its id comes first in a token.
RESET_TOKEN = f"{TOKEN.partition('.')[0]}.another.token"


def reset_token(it: Stage) -> None:
    it.sim.gateway.token = RESET_TOKEN


def recommend_more(it: Stage) -> None:
    it.sim.gateway.shards = 6


@dataclass(frozen=True)
class Change:
    """What is changed between the two lives, and how many sessions that costs of four."""

    settings: dict[str, str] = field(default_factory=dict)
    discord: Callable[[Stage], None] = lambda it: None
    resumed: int = 4
    identified: int = 0


CHANGES = {
    "nothing": Change(),
    "intents": Change({"INTENTS": "GUILDS,GUILD_MESSAGES"}, resumed=0, identified=4),
    "the same number": Change({"SHARDS": "4", "EXTRA_SHARDS": ""}),
    "another number": Change({"SHARDS": "3", "EXTRA_SHARDS": ""}, resumed=0, identified=3),
    "extra shards": Change({"EXTRA_SHARDS": "2"}),
    "a recommendation": Change(discord=recommend_more),
    "a recommendation that is taken": Change({"RESHARD": "1"}, recommend_more, resumed=0, identified=6),
    "reshard to the same": Change({"RESHARD": "1"}),
    "smaller clusters": Change({"SHARDS_PER_CLUSTER": "1"}, resumed=1, identified=3),
    "larger clusters": Change({"SHARDS_PER_CLUSTER": "4"}, resumed=2, identified=2),
    "some clusters": Change({"CLUSTERS": "2", "SHARDS": "4", "EXTRA_SHARDS": ""}, resumed=2),
    "a token of the same bot": Change({"DISCORD_TOKEN": RESET_TOKEN}, reset_token, resumed=0, identified=4),
    "another place for the cache": Change({"CACHE_PATH": "elsewhere"}, resumed=0, identified=4),
    "another state folder": Change({"STATE_DIR": "elsewhere"}, resumed=0, identified=4),
    "no cache": Change({"CACHE_ENABLED": "false"}),
    "compression": Change({"COMPRESSION": "zlib-stream"}),
    "presence": Change({"PRESENCE": '{"status": "idle"}'}),
    "events": Change({"EVENTS": "MESSAGE_CREATE"}),
    "processes": Change({"PROCESSES": "2"}),
}


async def asked(it: Stage) -> Plan:
    plan = await check.check(load(None, it.gateway.environment))
    assert plan.ok, plan.problems
    return plan


@pytest.mark.checklist("K64")
@pytest.mark.parametrize("what", CHANGES)
def test_check_and_the_start_agree(tmp_path: Path, broker: Broker, what: str) -> None:
    change = CHANGES[what]

    async def main() -> None:
        async with stage(
            tmp_path,
            broker,
            shards=4,
            per_cluster=2,
            guilds=8,
            members=2,
            PROCESSES="1",
            # A start with another state folder cannot know that the same shards identified a moment ago.
            simulator={"identify_window": 0.0},
            expect=frozenset({"*"}),
        ) as it:
            await it.ready()
            await it.events(40)
            await it.all_arrived()
            await it.gateway.stop()
            assert it.count("identify") == 4

            for name, value in change.settings.items():
                value = str(tmp_path / value) if value == "elsewhere" else value
                it.gateway.environment[name] = value
                if not value:
                    del it.gateway.environment[name]
            it.gateway.state_dir = Path(it.gateway.environment["STATE_DIR"])
            change.discord(it)
            plan = await asked(it)
            assert plan.identifies is not None
            said = (plan.shards, plan.shards_here, plan.resumed, plan.identifies.spends)

            await it.gateway.start()
            status = await it.gateway.until(
                lambda status: all_live(status) and len(status["shards"]) == plan.shards_here
            )
            resumed = sum(1 for entry in it.sim.ledger.journal if entry.what == "resumed")
            done = (status["shard_count"], status["shards_here"], resumed, it.count("identify") - 4)
            assert said == done
            assert (plan.resumed, plan.identifies.spends) == (change.resumed, change.identified)

    run(main())


@pytest.mark.checklist("K63")
def test_check_counts_what_the_gateway_wrote_down_also_when_discord_does_not_yet(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2, guilds=4, members=2, PROCESSES="1") as it:
            await it.ready()
            await it.gateway.stop()
            # Discord's answer is of a moment ago: it has not counted one of them.
            it.sim.gateway.limits.remaining = total = it.sim.options.identifies_total
            plan = await asked(it)
            assert plan.identifies is not None
            assert (plan.identifies.total, plan.identifies.left) == (total, total - 4)

    run(main())


@pytest.mark.checklist("K64")
def test_check_beside_a_gateway_that_runs_disturbs_it_in_nothing(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, per_cluster=1, guilds=4, members=2, PROCESSES="2") as it:
            status = await it.ready()
            for _ in range(3):
                plan = await asked(it)
                assert plan.running_pid == it.gateway.pid
                assert (plan.resumed, plan.shards) == (2, 2)
                await it.events(30)
            await it.all_arrived()
            after = await it.gateway.until(all_live)
            assert [each["session"] for each in after["shards"]] == [
                each["session"] for each in status["shards"]
            ]
            assert all(each["store"] == "ok" for each in after["clusters"])

    run(main())
