"""Changes of guilds as a whole: their fields, their roles, outages, and the bot joining and leaving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.values import Json
from rateway_simulator.world import snapshot
from rateway_simulator.world.changes.channels import change_channel
from rateway_simulator.world.changes.members import bits_of
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.founding import guild_index
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.snapshot import guild_object
from rateway_simulator.world.world import World

# Of all guilds, how many may be in an outage by chance: one in fifty, one at least.
_OUTAGES: Final = 50


# Changes


def change_guild(world: World, guild: Guild, **fields: Any) -> Json:
    """Change a guild's own fields; gives the guild object as GUILD_UPDATE and REST have it."""
    guild.fields = {**guild.fields, **fields}
    d = guild_object(guild)
    world.emit("GUILD_UPDATE", guild, d)
    return d


def outage(world: World, number: int) -> None:
    """Make the guild unavailable; no event of it is sent until it recovers."""
    if not world.is_available(number):
        return
    world.emit("GUILD_DELETE", world.guild(number), {"id": str(number), "unavailable": True})
    world.deactivate(number, gone=False)


def recover(world: World, number: int) -> None:
    """Let the guild come back with all it has."""
    if number not in world.unavailable:
        return
    world.activate(number)
    world.emit("GUILD_CREATE", world.guild(number), snapshot.guild_create(world, number))


def join(world: World, number: int | None) -> int:
    """Let the bot join a guild; one that it had left begins again as the seed made it."""
    if number is None:
        number = world.new_guild()
    elif guild_index(number) is None:
        raise ValueError(f"{number} is no guild of this world; leave the id out to join a new one")
    if world.has_guild(number):
        return number
    if number in world.left:
        world.left.remove(number)
    world.activate(number)
    world.emit("GUILD_CREATE", world.guild(number), snapshot.guild_create(world, number, fresh=True))
    return number


def leave(world: World, number: int) -> None:
    """Remove the bot from the guild, and forget all about the guild."""
    if not world.has_guild(number):
        return
    was_away = number in world.unavailable
    guild = world.guild(number)
    if was_away:
        world.unavailable.discard(number)
    world.emit("GUILD_DELETE", guild, {"id": str(number)})
    world.deactivate(number, gone=True)


def create_role(world: World, guild: Guild, name: str, **fields: Any) -> Json:
    """Create a role just above @everyone."""
    role_id = world.snowflake()
    d = guild.roles[role_id] = payloads.role(role_id, name, 1, **fields)
    world.emit("GUILD_ROLE_CREATE", guild, {"guild_id": guild.id, "role": d})
    return d


def change_role(world: World, guild: Guild, role_id: str, **fields: Any) -> Json:
    """Change a role's fields."""
    d = guild.roles[role_id] = {**guild.roles[role_id], **fields}
    world.emit("GUILD_ROLE_UPDATE", guild, {"guild_id": guild.id, "role": d})
    return d


def delete_role(world: World, guild: Guild, role_id: str) -> None:
    """Delete a role; members and emojis lose it without a word, channels that named it are updated."""
    del guild.roles[role_id]
    guild.roster.drop_role(role_id)
    for emoji_id, emoji in guild.emojis.items():
        if role_id in emoji["roles"]:
            guild.emojis[emoji_id] = {**emoji, "roles": [r for r in emoji["roles"] if r != role_id]}
    world.emit("GUILD_ROLE_DELETE", guild, {"guild_id": guild.id, "role_id": role_id})
    for channel_id, channel in list(guild.channels.items()):
        overwrites = channel["permission_overwrites"]
        kept = [overwrite for overwrite in overwrites if overwrite["id"] != role_id]
        if len(kept) < len(overwrites):
            change_channel(world, guild, channel_id, permission_overwrites=kept)


# Chance


def _update(world: World, guild: Guild, chance: Chance) -> None:
    bits = bits_of(chance)
    kind = bits & 3
    if kind == 0:
        change_guild(world, guild, name=f"{guild.fields['name'].split(' — ')[0]} — {bits % 1000}")
    elif kind == 1:
        change_guild(world, guild, description=None if bits & 4 else f"About us, {bits % 1000}")
    elif kind == 2:
        boosts = bits >> 3 & 31
        tier = 3 if boosts >= 14 else 2 if boosts >= 7 else 1 if boosts >= 2 else 0
        change_guild(world, guild, premium_subscription_count=boosts, premium_tier=tier)
    else:
        change_guild(world, guild, verification_level=bits >> 3 & 3, icon=f"{bits:032x}")


def _create(world: World, guild: Guild, chance: Chance) -> None:
    if world.unavailable and chance.random() < 0.7:
        recover(world, min(world.unavailable))
    elif world.left and chance.random() < 0.7:
        join(world, world.left[0])
    elif len(world.guild_ids) < world.options.guilds:
        join(world, None)
    elif world.unavailable:
        recover(world, min(world.unavailable))


def _delete(world: World, guild: Guild, chance: Chance) -> None:
    total = len(world.guild_ids)
    away = len(world.unavailable)
    if total - away < 2 or total < world.options.guilds:
        return
    if chance.random() < 0.5 and away < max(1, total // _OUTAGES):
        outage(world, guild.number)
    else:
        leave(world, guild.number)


def _role_create(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.roles) < world.options.roles_per_guild + 20:
        bits = bits_of(chance)
        permissions = str(bits & 0xFFFFF)
        create_role(
            world, guild, f"new role {bits % 1000}", mentionable=bool(bits & 1), permissions=permissions
        )


def _changeable(guild: Guild) -> list[str]:
    return [key for key, d in guild.roles.items() if key != guild.id and not d["managed"]]


def _role_update(world: World, guild: Guild, chance: Chance) -> None:
    bits = bits_of(chance)
    roles = _changeable(guild)
    if not roles:
        return
    colour = bits >> 8 & 0xFFFFFF
    colours = {"primary_color": colour, "secondary_color": None, "tertiary_color": None}
    role_id = roles[bits % len(roles)]
    change_role(
        world, guild, role_id, color=colour, colors=colours, hoist=bool(bits & 1), name=f"role {bits % 500}"
    )


def _role_delete(world: World, guild: Guild, chance: Chance) -> None:
    roles = _changeable(guild)
    if len(roles) > 2:
        delete_role(world, guild, roles[int(chance.random() * len(roles))])


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "GUILD_UPDATE": _update,
    "GUILD_CREATE": _create,
    "GUILD_DELETE": _delete,
    "GUILD_ROLE_CREATE": _role_create,
    "GUILD_ROLE_UPDATE": _role_update,
    "GUILD_ROLE_DELETE": _role_delete,
}
