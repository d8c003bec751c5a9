"""What happens to emojis, stickers and sounds, and to scheduled events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import SPOKEN
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import bits_of
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Completed and canceled (docs: Guild Scheduled Event, Status).
_OVER: Final = frozenset({3, 4})


# Changes


def set_emojis(world: World, guild: Guild, emojis: dict[str, Json]) -> None:
    """Set the guild's emojis."""
    guild.emojis = emojis
    world.emit("GUILD_EMOJIS_UPDATE", guild, {"guild_id": guild.id, "emojis": list(emojis.values())})


def set_stickers(world: World, guild: Guild, stickers: dict[str, Json]) -> None:
    """Set the guild's stickers."""
    guild.stickers = stickers
    world.emit("GUILD_STICKERS_UPDATE", guild, {"guild_id": guild.id, "stickers": list(stickers.values())})


def set_sound(world: World, guild: Guild, sound_id: str, sound: Json | None) -> None:
    """Create, change or (None) delete a sound."""
    known = sound_id in guild.sounds
    if sound is None:
        del guild.sounds[sound_id]
        d: Json = {"sound_id": sound_id, "guild_id": guild.id}
        world.emit("GUILD_SOUNDBOARD_SOUND_DELETE", guild, d)
        return
    guild.sounds[sound_id] = sound
    world.emit(f"GUILD_SOUNDBOARD_SOUND_{'UPDATE' if known else 'CREATE'}", guild, sound)


def create_event(
    world: World, guild: Guild, creator: Json, name: str, channel: Json | None, **fields: Any
) -> Json:
    """Create a scheduled event."""
    event_id = world.snowflake()
    d = payloads.scheduled_event(event_id, guild.id, creator, name, world.wall, channel) | fields
    guild.events[event_id] = d
    guild.subscribers[event_id] = []
    world.emit("GUILD_SCHEDULED_EVENT_CREATE", guild, dict(d))
    return d


def change_event(world: World, guild: Guild, event_id: str, **fields: Any) -> Json:
    """Change a scheduled event; with the status of one that is over, it is gone."""
    d = {**guild.events[event_id], **fields}
    if d["status"] in _OVER:
        del guild.events[event_id]
        guild.subscribers.pop(event_id, None)
    else:
        guild.events[event_id] = d
    world.emit("GUILD_SCHEDULED_EVENT_UPDATE", guild, dict(d))
    return d


def delete_event(world: World, guild: Guild, event_id: str) -> None:
    """Delete a scheduled event."""
    d = guild.events.pop(event_id)
    guild.subscribers.pop(event_id, None)
    world.emit("GUILD_SCHEDULED_EVENT_DELETE", guild, d)


def follow_event(world: World, guild: Guild, event_id: str, user_id: str, *, interested: bool) -> bool:
    """Note whether a user is interested in a scheduled event; return False when nothing changes."""
    people = guild.subscribers[event_id]
    if (user_id in people) == interested:
        return False
    (people.append if interested else people.remove)(user_id)
    event = guild.events[event_id]
    guild.events[event_id] = {**event, "user_count": len(people)}
    name = f"GUILD_SCHEDULED_EVENT_USER_{'ADD' if interested else 'REMOVE'}"
    world.emit(name, guild, {"guild_scheduled_event_id": event_id, "user_id": user_id, "guild_id": guild.id})
    return True


# Chance


def _emojis_update(world: World, guild: Guild, chance: Chance) -> None:
    bits = bits_of(chance)
    emojis = dict(guild.emojis)
    kind = bits & 3
    if kind == 0 and len(emojis) > 2:
        del emojis[list(emojis)[bits % len(emojis)]]
    elif kind == 1 and emojis:
        key = list(emojis)[bits % len(emojis)]
        emojis[key] = {**emojis[key], "name": f"renamed_{bits % 1000}"}
    elif kind == 2 and emojis:
        key = list(emojis)[bits % len(emojis)]
        emojis[key] = {**emojis[key], "available": not emojis[key]["available"]}
    elif len(emojis) < 50:
        emoji_id = world.snowflake()
        emojis[emoji_id] = payloads.emoji(emoji_id, f"emoji_{bits % 1000}", animated=bool(bits & 4))
    set_emojis(world, guild, emojis)


def _stickers_update(world: World, guild: Guild, chance: Chance) -> None:
    bits = bits_of(chance)
    stickers = dict(guild.stickers)
    if bits & 1 and len(stickers) > 1:
        del stickers[next(iter(stickers))]
    elif len(stickers) < 15:
        sticker_id = world.snowflake()
        stickers[sticker_id] = payloads.sticker(sticker_id, guild.id, f"sticker {bits % 1000}")
    set_stickers(world, guild, stickers)


def _sound_create(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.sounds) < 24:
        sound_id = world.snowflake()
        d = guild.sounds[sound_id] = payloads.sound(sound_id, guild.id, f"sound {bits_of(chance) % 1000}")
        world.emit("GUILD_SOUNDBOARD_SOUND_CREATE", guild, d)


def _sound_update(world: World, guild: Guild, chance: Chance) -> None:
    for sound_id, old in guild.sounds.items():
        d = guild.sounds[sound_id] = {**old, "name": f"louder {bits_of(chance) % 1000}", "volume": 0.5}
        world.emit("GUILD_SOUNDBOARD_SOUND_UPDATE", guild, d)
        return


def _sound_delete(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.sounds) > 1:
        sound_id = next(iter(guild.sounds))
        del guild.sounds[sound_id]
        world.emit("GUILD_SOUNDBOARD_SOUND_DELETE", guild, {"sound_id": sound_id, "guild_id": guild.id})


def _sounds_update(world: World, guild: Guild, chance: Chance) -> None:
    guild.sounds = {key: {**d, "available": not d["available"]} for key, d in guild.sounds.items()}
    d = {"guild_id": guild.id, "soundboard_sounds": list(guild.sounds.values())}
    world.emit("GUILD_SOUNDBOARD_SOUNDS_UPDATE", guild, d)


def _event_create(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is None or len(guild.events) > 9:
        return
    bits = bits_of(chance)
    spoken = [d for d in guild.channels.values() if d["type"] in SPOKEN]
    channel = spoken[bits % len(spoken)] if spoken and bits & 1 else None
    create_event(world, guild, world.people.user(index), f"Event {bits % 1000}", channel)


def _event_update(world: World, guild: Guild, chance: Chance) -> None:
    for event_id, d in guild.events.items():
        bits = bits_of(chance)
        if d["status"] == 1 and bits & 1:
            change_event(world, guild, event_id, status=2)
        elif d["status"] == 2:
            change_event(world, guild, event_id, status=3)
        else:
            change_event(
                world, guild, event_id, description=None if bits & 2 else f"Bring {bits % 9} friends"
            )
        return


def _event_delete(world: World, guild: Guild, chance: Chance) -> None:
    for event_id in list(guild.events):
        delete_event(world, guild, event_id)
        return


def _event_user_add(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is not None and guild.events:
        follow_event(world, guild, next(iter(guild.events)), world.people.id_of(index), interested=True)


def _event_user_remove(world: World, guild: Guild, chance: Chance) -> None:
    for event_id, people in guild.subscribers.items():
        if people and event_id in guild.events:
            follow_event(world, guild, event_id, people[0], interested=False)
            return


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "GUILD_EMOJIS_UPDATE": _emojis_update,
    "GUILD_STICKERS_UPDATE": _stickers_update,
    "GUILD_SOUNDBOARD_SOUND_CREATE": _sound_create,
    "GUILD_SOUNDBOARD_SOUND_UPDATE": _sound_update,
    "GUILD_SOUNDBOARD_SOUND_DELETE": _sound_delete,
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": _sounds_update,
    "GUILD_SCHEDULED_EVENT_CREATE": _event_create,
    "GUILD_SCHEDULED_EVENT_UPDATE": _event_update,
    "GUILD_SCHEDULED_EVENT_DELETE": _event_delete,
    "GUILD_SCHEDULED_EVENT_USER_ADD": _event_user_add,
    "GUILD_SCHEDULED_EVENT_USER_REMOVE": _event_user_remove,
}
