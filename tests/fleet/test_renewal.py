"""After the death of a member the caches of its clusters are cold at the next owner: with CACHE_RENEW a second session
beside each shard's own fills them, and no worker notices.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from rateway_client import QueryError, Worker
from rateway_simulator.world import snapshot

from tests.aio import run
from tests.e2e.harness import Json
from tests.fleet.audit import FleetAudit, audit_fleet
from tests.fleet.stage import SILENCE, FleetStage, Member, fleet_stage
from tests.rabbitmq import Broker

RATE_PER_SHARD = 3.0
# On a machine that others use a member may be followed so late that Discord would have ended its sessions.
PATIENT = {"heartbeat_missing": 120.0}


async def killed(it: FleetStage) -> tuple[set[int], Member, int]:
    """Kill the owner of the first cluster; return its shards once the other has them, that one, and the moment."""
    await it.whole()
    it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
    await it.flowing()
    victim = (await it.owners())[1]
    other = next(member for member in it.members if member is not victim)
    hit, since = it.shards_of(await victim.clusters()), it.now()
    await victim.kill()
    await it.live_since(since, hit)
    return hit, other, since


def begun(it: FleetStage, since: int) -> dict[str, int]:
    """Session → shard, of those that began after a moment."""
    entries = list(it.sim.ledger.journal)[since:]
    return {each.session: each.shard for each in entries if each.what == "ready" and each.session is not None}


async def without(it: FleetStage, sessions: dict[str, int]) -> FleetAudit:
    """The audit, once all has arrived, of what the sessions got that are not these."""

    def look() -> FleetAudit:
        ledger = [each for each in it.sim.ledger.log(0) if each.session not in sessions]
        return audit_fleet(ledger, it.receipts, lost_below=until)

    until = it.sim.ledger.events
    found = look()
    for _ in range(round(SILENCE)):
        if not found.lost:
            break
        await asyncio.sleep(1.0)
        found = look()
    return found


def members_of(it: FleetStage, guild_id: int) -> list[Json]:
    """A guild's members as Discord has them; who is in voice may be listed twice."""
    found: list[Json] = snapshot.guild_create(it.sim.world, guild_id, large_threshold=1000)["members"]
    return found


async def codes(it: FleetStage) -> dict[int, str]:
    """What the cache says to a query for each guild: how many members it has, or why not."""
    said = {}
    async with Worker(it.nodes[0].uri) as worker:
        for guild_id in it.sim.world.guild_ids:
            try:
                found = await worker.query("GuildMembers", guild_id, limit=1000)
            except QueryError as error:
                said[guild_id] = error.code
            else:
                said[guild_id] = f"{len(found)} members"
    return said


def renewals(status: Json) -> list[Json]:
    return [each["cache_renewal"] for each in status["clusters"] if each["cache_renewal"] is not None]


def test_a_cache_that_a_death_left_cold_is_filled_beside_the_sessions_that_go_on(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with fleet_stage(
            tmp_path, [broker], fleet="renewal", simulator=PATIENT, CACHE_RENEW="true"
        ) as it:
            hit, other, since = await killed(it)
            status = await other.until(
                lambda status: (
                    sum(each["renewed"] for each in renewals(status)) == len(hit)
                    and not any(each["cache_cold"] for each in status["clusters"])
                )
            )
            # One identify for each cold shard, none for any session.
            second = begun(it, since)
            assert sorted(second.values()) == sorted(hit)
            assert it.count("identify_beside") == len(hit)
            assert it.count("identify") == it.layout.shards + len(hit)
            assert sum(each["identifies"] for each in renewals(status)) == len(hit)
            assert sum(each["failed"] for each in renewals(status)) == 0
            assert all(each["identifies"] == 0 for each in status["shards"] if each["shard"] in hit)
            # They are over at Discord, and each shard's own is not.
            await it.until(lambda: not second.keys() & it.sim.gateway.sessions.keys())
            assert it.attached() == set(range(it.layout.shards))
            assert not any("renewed" in note for note in status["notes"])
            # Workers have noticed nothing, and the cache is what Discord holds.
            it.sim.set_rate(0)
            found = await without(it, second)
            assert found.clean and found.told == 0, found
            assert not [each for each in it.receipts.sessions if each in second]
            await it.until(lambda: not it.sim.gateway.streaming)
            world = it.sim.world
            wanted = {
                guild_id: len({each["user"]["id"] for each in members_of(it, guild_id)})
                for guild_id in world.guild_ids
                if world.is_available(guild_id)
            }
            said = await codes(it)
            assert {guild_id: said[guild_id] for guild_id in wanted} == {
                guild_id: f"{count} members" for guild_id, count in wanted.items()
            }
            assert it.broken("identify-concurrency") == it.broken("identify-budget") == 0

    run(main(), timeout=240)


def test_nothing_is_renewed_out_of_the_reserve_and_a_note_says_so(tmp_path: Path, broker: Broker) -> None:
    # Of 1,000 a day 50 are kept: after six starts nothing is left beyond them.
    nearly_none = {"identifies_remaining": 56, **PATIENT}

    async def main() -> None:
        async with fleet_stage(
            tmp_path, [broker], fleet="reserve", simulator=nearly_none, CACHE_RENEW="true"
        ) as it:
            hit, other, since = await killed(it)
            status = await other.until(
                lambda status: any("is not renewed" in note for note in status["notes"])
            )
            assert sum(each["cache_cold"] for each in status["clusters"]) == len(hit)
            assert begun(it, since) == {}
            assert it.count("identify") == it.layout.shards and it.count("identify_beside") == 0
            assert it.attached() == set(range(it.layout.shards))
            assert "incomplete" in (await codes(it)).values()

    run(main(), timeout=240)
