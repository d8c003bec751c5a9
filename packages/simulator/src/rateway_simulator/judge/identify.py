"""Judge an identify: what is wrong with it, in words, or None. Commands are judged by
`rateway_protocol.discord.command_forms`, as in the gateway.

Pure. The rules are those of Discord's documentation, "Gateway Events", under "Identify Structure".
"""

from __future__ import annotations

from typing import Any


def identify_fault(d: Any) -> str | None:
    """Op 2, but for token, intents' meaning and shard, which have close codes of their own."""
    if not isinstance(d, dict):
        return "d is not an object"
    if not isinstance(d.get("token"), str):
        return "token is not a string"
    if not isinstance(d.get("intents"), int) or isinstance(d["intents"], bool):
        return "intents is not an integer"
    properties = d.get("properties")
    if not isinstance(properties, dict):
        return "properties is not an object"
    for name in ("os", "browser", "device"):
        if not isinstance(properties.get(name, properties.get(f"${name}")), str):
            return f"properties.{name} is missing"
    threshold = d.get("large_threshold")
    if threshold is not None and not (isinstance(threshold, int) and 50 <= threshold <= 250):
        return f"large_threshold {threshold!r} is not in 50 to 250"
    return None


def shard_fault(shard: Any) -> str | None:
    """`shard` of op 2; None is allowed and means [0, 1]."""
    if shard is None:
        return None
    if (
        not isinstance(shard, list)
        or len(shard) != 2
        or not all(isinstance(part, int) and not isinstance(part, bool) for part in shard)
        or not 0 <= shard[0] < shard[1]
    ):
        return f"shard {shard!r} is not [shard_id, num_shards]"
    return None
