"""The broker that takes everything (``benchmarks/path/sink.py``) answers what a gateway asks at its start."""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.rig import child
from benchmarks.rig.streams import Recipe

SHARDS, EVENTS = 2, 50


def test_a_gateway_becomes_live_on_the_sink_and_its_events_arrive_there(tmp_path: Path) -> None:
    recipe = Recipe(shards=SHARDS, guilds=2, members=5, events=EVENTS)
    with child.sink() as (sink, uri), child.discord(recipe, "zstd") as (discord, port):
        api = f"http://127.0.0.1:{port}/api/v10"
        with child.gateway(tmp_path, api, uri, SHARDS, COMPRESSION="zstd-stream", CACHE_ENABLED="false"):
            assert discord.fact("live")["live"] == SHARDS
            discord.say(json.dumps({"do": "flood", "events": EVENTS}))
            assert discord.fact("sent")["sent"] == SHARDS * EVENTS
            # READY and the guilds of each shard go before them.
            due = SHARDS * (1 + recipe.guilds + EVENTS)
            deadline = time.monotonic() + child.PATIENCE
            while (arrived := sink.count()) < due and time.monotonic() < deadline:
                time.sleep(0.05)
            assert arrived >= due
