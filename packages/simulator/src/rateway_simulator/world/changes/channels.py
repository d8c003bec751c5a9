"""Changes of channels and of their webhooks and invites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import ANNOUNCEMENT, CATEGORY, FORUM, SPOKEN, STAGE, TEXT, VOICE
from rateway_simulator.payloads.values import Json, iso
from rateway_simulator.world.changes.members import bits_of, member_of
from rateway_simulator.world.changes.threads import forget_thread
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.snapshot import guild_object
from rateway_simulator.world.world import World

_KINDS: Final = (TEXT, TEXT, VOICE, ANNOUNCEMENT, FORUM, STAGE, CATEGORY)


# Changes


def create_channel(
    world: World, guild: Guild, kind: int, name: str, parent_id: str | None = None, **fields: Any
) -> Json:
    """Create a channel at the end of the list."""
    channel_id = world.snowflake()
    d = payloads.channel(channel_id, kind, name, len(guild.channels), parent_id, **fields)
    guild.channels[channel_id] = d
    world.emit("CHANNEL_CREATE", guild, {**d, "guild_id": guild.id})
    return d


def change_channel(world: World, guild: Guild, channel_id: str, **fields: Any) -> Json:
    """Change a channel's fields; a changed `type` brings the fields of the new kind."""
    d = guild.channels[channel_id]
    kind = int(fields["type"] if "type" in fields else d["type"])
    if kind != d["type"]:
        blank = payloads.channel(channel_id, kind, d["name"], d["position"])
        d = {key: d.get(key, value) for key, value in blank.items()} | {"type": kind}
    now = guild.channels[channel_id] = {**d, **fields}
    world.emit("CHANNEL_UPDATE", guild, {**now, "guild_id": guild.id})
    return now


def delete_channel(world: World, guild: Guild, channel_id: str) -> Json | None:
    """Delete a channel; threads, stages and scheduled events in it go without a word, people in voice with one."""
    d = guild.channels.pop(channel_id, None)
    if d is None:
        return None
    for thread in [*guild.threads.values(), *guild.archived.values()]:
        if thread["parent_id"] == channel_id:
            forget_thread(guild, thread["id"])
    _unbind(guild.stages, channel_id)
    for event_id in _unbind(guild.events, channel_id):
        guild.subscribers.pop(event_id, None)
    guild.messages.pop(channel_id, None)
    for key in (*_unbind(guild.webhooks, channel_id), *_unbind(guild.invites, channel_id)):
        world.places.pop(key, None)
    guild.info.pop(channel_id, None)
    world.emit("CHANNEL_DELETE", guild, {**d, "guild_id": guild.id})
    for user_id in sorted(guild.participants.pop(channel_id, ())):
        _hang_up(world, guild, user_id)
    if d["type"] == CATEGORY:
        for child in list(guild.channels.values()):
            if child["parent_id"] == channel_id:
                change_channel(world, guild, child["id"], parent_id=None)
    _unname(world, guild, channel_id)
    return d


def _unbind(entities: dict[str, Json], channel_id: str) -> list[str]:
    gone = [key for key, entity in entities.items() if entity["channel_id"] == channel_id]
    for key in gone:
        del entities[key]
    return gone


def _hang_up(world: World, guild: Guild, user_id: str) -> None:
    voice = guild.voice_states.pop(user_id, None)
    member = member_of(world, guild, user_id)
    if voice is not None:
        world.emit(
            "VOICE_STATE_UPDATE", guild, {**voice, "channel_id": None, "guild_id": guild.id, "member": member}
        )


def _unname(world: World, guild: Guild, channel_id: str) -> None:
    """The guild's own fields that name a deleted channel become null, in a GUILD_UPDATE."""
    named = {
        key: None for key, value in guild.fields.items() if value == channel_id and key.endswith("channel_id")
    }
    if named:
        guild.fields = {**guild.fields, **named}
        world.emit("GUILD_UPDATE", guild, guild_object(guild))


def create_invite(world: World, guild: Guild, channel_id: str, inviter: Json, **fields: Any) -> Json:
    """Create an invite to a channel; return it as INVITE_CREATE has it."""
    code = f"sim{int(world.snowflake()) & 0xFFFFFFFFFF:x}"
    d = guild.invites[code] = {
        "channel_id": channel_id,
        "code": code,
        "created_at": world.now(),
        "guild_id": guild.id,
        "inviter": inviter,
        "max_age": 86_400,
        "max_uses": 0,
        "temporary": False,
        "uses": 0,
        "type": 0,
        "flags": 0,
        **fields,
        "expires_at": iso(world.wall + age) if (age := fields.get("max_age", 86_400)) else None,
    }
    world.places[code] = guild.number
    world.emit("INVITE_CREATE", guild, d)
    return d


def delete_invite(world: World, guild: Guild, code: str) -> bool:
    """Delete an invite, or let it expire; return False when there is none."""
    d = guild.invites.pop(code, None)
    world.places.pop(code, None)
    if d is None:
        return False
    where = {"channel_id": d["channel_id"], "guild_id": guild.id, "code": code}
    world.emit("INVITE_DELETE", guild, where)
    return True


# Chance


def _pick(guild: Guild, chance: Chance) -> Json | None:
    channels = guild.channels
    return list(channels.values())[int(chance.random() * len(channels))] if channels else None


def _create(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.channels) > 2 * world.options.channels_per_guild + 20:
        return
    bits = bits_of(chance)
    kind = _KINDS[bits % 7]
    parents = [d["id"] for d in guild.channels.values() if d["type"] == CATEGORY]
    parent_id = parents[0] if parents and kind != CATEGORY and bits & 8 else None
    create_channel(world, guild, kind, f"new-{bits % 1000}", parent_id, nsfw=bits & 63 == 0)


def _update(world: World, guild: Guild, chance: Chance) -> None:
    d = _pick(guild, chance)
    if d is None:
        return
    bits = bits_of(chance)
    kind = bits & 7
    if kind < 2 and "topic" in d:
        change_channel(world, guild, d["id"], topic=None if bits & 8 else f"Topic {bits % 1000}")
    elif kind < 4:
        change_channel(world, guild, d["id"], name=f"renamed-{bits % 1000}")
    elif kind == 4 and d["type"] in (TEXT, ANNOUNCEMENT):
        change_channel(world, guild, d["id"], type=ANNOUNCEMENT if d["type"] == TEXT else TEXT)
    elif kind == 5 and d["type"] in SPOKEN:
        change_channel(world, guild, d["id"], bitrate=8000 * (1 + bits % 12), user_limit=bits % 50)
    else:
        role_id = list(guild.roles)[bits % len(guild.roles)]
        others = [o for o in d["permission_overwrites"] if o["id"] != role_id]
        new = payloads.overwrite(role_id, 0, allow=1 << 11, deny=1 << 15)
        change_channel(world, guild, d["id"], permission_overwrites=[*others, new])


def _delete(world: World, guild: Guild, chance: Chance) -> None:
    d = _pick(guild, chance)
    # The first text channel stays, so that there is always somewhere to write.
    if d is not None and len(guild.channels) > 4 and d is not _first_text(guild):
        delete_channel(world, guild, d["id"])


def _first_text(guild: Guild) -> Json | None:
    return next((d for d in guild.channels.values() if d["type"] == TEXT), None)


def _webhooks_update(world: World, guild: Guild, chance: Chance) -> None:
    text = _first_text(guild)
    if text is not None:
        world.emit("WEBHOOKS_UPDATE", guild, {"guild_id": guild.id, "channel_id": text["id"]})


def _invite_create(world: World, guild: Guild, chance: Chance) -> None:
    text = _first_text(guild)
    index = guild.roster.pick(chance)
    if text is not None and index is not None:
        create_invite(world, guild, text["id"], world.people.user(index))


def _invite_delete(world: World, guild: Guild, chance: Chance) -> None:
    if guild.invites:
        delete_invite(world, guild, next(iter(guild.invites)))


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "CHANNEL_CREATE": _create,
    "CHANNEL_UPDATE": _update,
    "CHANNEL_DELETE": _delete,
    "WEBHOOKS_UPDATE": _webhooks_update,
    "INVITE_CREATE": _invite_create,
    "INVITE_DELETE": _invite_delete,
}
