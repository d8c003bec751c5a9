"""The world's answers to a client's gateway commands (op 3, 4, 8, 31, 43)."""

from __future__ import annotations

from collections.abc import Iterable

from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes import members, voice
from rateway_simulator.world.dispatch import Dispatch
from rateway_simulator.world.snapshot import ALL_INTENTS
from rateway_simulator.world.world import World


def members_chunk(world: World, request: Json, *, intents: int = ALL_INTENTS) -> list[Dispatch]:
    """Return the GUILD_MEMBERS_CHUNKs for op 8's `d`, at most 1,000 members each; none for an unknown guild."""
    number = _number(request.get("guild_id"))
    if number is None or not world.is_available(number):
        return []
    return members.chunks(world, world.guild(number), request, intents)


def voice_update(world: World, request: Json) -> list[Dispatch]:
    """Apply op 4's `d`. Return VOICE_STATE_UPDATE, and VOICE_SERVER_UPDATE when a channel was joined.

    What waited in the outbox comes first, so that the order of events is kept.
    """
    number = _number(request.get("guild_id"))
    if number is not None and world.is_available(number):
        voice.own_voice(world, world.guild(number), request)
    return world.drain()


def soundboard_sounds(world: World, guild_ids: Iterable[int | str]) -> list[Dispatch]:
    """Return one SOUNDBOARD_SOUNDS for each of op 31's guilds that the bot is in."""
    found = []
    for guild_id in guild_ids:
        number = _number(guild_id)
        if number is not None and world.is_available(number):
            guild = world.guild(number)
            d = {"guild_id": guild.id, "soundboard_sounds": list(guild.sounds.values())}
            found.append(Dispatch("SOUNDBOARD_SOUNDS", number, d))
    return found


def channel_info(world: World, request: Json) -> list[Dispatch]:
    """Return CHANNEL_INFO for op 43's `d`; nothing for an unknown guild."""
    number = _number(request.get("guild_id"))
    if number is None or not world.is_available(number):
        return []
    return [voice.channel_info(world.guild(number), request.get("fields") or [])]


def own_presence(world: World, status: str, activities: list[Json]) -> None:
    """Set the bot's presence (op 2, op 3). Discord sends the bot no event for it."""
    world.app.presence = {"status": status, "activities": activities}


def _number(value: object) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return None
