"""Changes of members and users: presences, joins, changes, leaves, bans, the bot's own user, chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rateway_protocol.discord.intents import Intents
from rateway_simulator.payloads.values import Json, iso, noise
from rateway_simulator.world.dispatch import Chance, Dispatch
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.people import presence
from rateway_simulator.world.snapshot import member_with_user, own_member
from rateway_simulator.world.world import World

_STATUSES: Final = ("online", "online", "online", "idle", "dnd", "offline", "offline")
# Members in one GUILD_MEMBERS_CHUNK, and ids or results of one request (docs: Request Guild Members).
CHUNK: Final = 1000
ASKED: Final = 100
NONCE_BYTES: Final = 32


def bits_of(chance: Chance) -> int:
    """Return 53 random bits."""
    return int(chance.random() * 9_007_199_254_740_992)


def user_of(world: World, user_id: str) -> Json | None:
    """Return the user object behind an id, the bot's included."""
    index = world.people.index_of(user_id)
    return None if index is None else world.people.user(index)


def member_of(world: World, guild: Guild, user_id: str) -> Json | None:
    """Return a member with `user`, the bot included; None when the user is not in the guild."""
    if user_id == world.bot_id:
        return own_member(world, guild)
    index = world.people.index_of(user_id)
    if index is None or index not in guild.roster:
        return None
    return member_with_user(world, guild, index)


# Changes


def set_presence(world: World, guild: Guild, index: int, status: str, bits: int) -> None:
    """Change a member's presence in one guild."""
    d = presence({"id": world.people.id_of(index)}, status, bits, world.wall)
    guild.roster.presences[index] = None if status == "offline" else d
    if bits & 0xFF == 0:
        # Now and then the user comes along in full.
        world.emit("PRESENCE_UPDATE", guild, {**d, "user": world.people.user(index), "guild_id": guild.id})
    else:
        world.emit("PRESENCE_UPDATE", guild, {**d, "guild_id": guild.id})


def add_member(world: World, guild: Guild, index: int) -> Json:
    """Add a user to a guild as a member."""
    member: Json = {
        "nick": None,
        "avatar": None,
        "banner": None,
        "roles": [],
        "joined_at": world.now(),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "flags": 1 if index in guild.roster.removed else 0,
        "pending": False,
        "communication_disabled_until": None,
        "avatar_decoration_data": None,
        "collectibles": None,
    }
    guild.roster.add(index, member)
    homes = world.travels.setdefault(index, [])
    if guild.number not in homes:
        homes.append(guild.number)
    d = {**member, "user": world.people.user(index), "guild_id": guild.id}
    world.emit("GUILD_MEMBER_ADD", guild, d)
    return d


def remove_member(world: World, guild: Guild, index: int) -> None:
    """Remove a member from a guild: out of voice first, then out of its threads and away."""
    user_id = world.people.id_of(index)
    voice = guild.voice_states.pop(user_id, None)
    if voice is not None:
        guild.participants[voice["channel_id"]].discard(user_id)
        gone = {
            **voice,
            "channel_id": None,
            "guild_id": guild.id,
            "member": member_with_user(world, guild, index),
        }
        world.emit("VOICE_STATE_UPDATE", guild, gone)
    guild.roster.remove(index)
    homes = world.travels.get(index)
    if homes is not None and guild.number in homes:
        homes.remove(guild.number)
        if not homes:
            del world.travels[index]
    for people in guild.thread_people.values():
        if user_id in people:
            people.remove(user_id)
    world.emit("GUILD_MEMBER_REMOVE", guild, {"guild_id": guild.id, "user": world.people.user(index)})


def change_member(world: World, guild: Guild, index: int, **fields: Any) -> Json:
    """Change a member's fields; `roles` must be of the guild."""
    roster = guild.roster
    member = {**roster.member(index, guild.roles), **fields}
    roster.keep(index, member)
    return _tell_member(world, guild, index, member)


def change_own_member(world: World, guild: Guild, **fields: Any) -> Json:
    """Change the bot's own member."""
    guild.roster.bot = {**guild.roster.bot, **fields}
    d = {**own_member(world, guild), "guild_id": guild.id}
    world.emit("GUILD_MEMBER_UPDATE", guild, d, own=True)
    return d


def _tell_member(world: World, guild: Guild, index: int, member: Json) -> Json:
    d = {**member, "user": world.people.user(index), "guild_id": guild.id}
    world.emit("GUILD_MEMBER_UPDATE", guild, d)
    return d


def change_user(world: World, index: int, **fields: Any) -> None:
    """Change a user; GUILD_MEMBER_UPDATE is sent for every guild that it shares with the bot."""
    world.people.change(index, **fields)
    for number in world.homes(index):
        guild = world.guild(number)
        _tell_member(world, guild, index, guild.roster.member(index, guild.roles))


def update_own_user(world: World, **fields: Any) -> None:
    """Change the bot's user (its `bio` if nothing else is named): USER_UPDATE, to shard 0."""
    index = world.people.index_of(world.bot_id)
    assert index is not None
    world.people.change(index, **(fields or {"bio": f"As of {world.now()}"}))
    world.emit("USER_UPDATE", None, world.ready_user())
    if fields.keys() & {"username", "avatar", "global_name", "banner"}:
        for number in world.guild_ids:
            if world.is_available(number):
                change_own_member(world, world.guild(number))


def ban(world: World, guild: Guild, index: int) -> None:
    """Ban a user, and remove it if it is a member."""
    user = world.people.user(index)
    guild.bans.add(user["id"])
    world.emit("GUILD_BAN_ADD", guild, {"guild_id": guild.id, "user": user})
    if index in guild.roster:
        remove_member(world, guild, index)


def unban(world: World, guild: Guild, user_id: str) -> None:
    """Lift a ban."""
    guild.bans.discard(user_id)
    world.emit("GUILD_BAN_REMOVE", guild, {"guild_id": guild.id, "user": user_of(world, user_id)})


# Chance


def _presence_update(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is not None:
        bits = bits_of(chance)
        set_presence(world, guild, index, _STATUSES[bits % 7], bits >> 4)


def _member_add(world: World, guild: Guild, chance: Chance) -> None:
    draw = chance.random()
    if draw < 0.03:
        # Discord repeats it now and then for a member that has long been there (docs: Guild Member Add).
        index = guild.roster.pick(chance)
        if index is not None:
            d = {**member_with_user(world, guild, index), "guild_id": guild.id}
            world.emit("GUILD_MEMBER_ADD", guild, d)
            return
    if draw < 0.5:
        # A user that another guild has as a member.
        other = world.pick(chance)
        index = None if other is None else other.roster.pick(chance)
        if index is not None and index not in guild.roster and world.people.id_of(index) not in guild.bans:
            add_member(world, guild, index)
            return
    add_member(world, guild, world.newcomer())


def _member_remove(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is not None and world.people.id_of(index) != guild.fields["owner_id"]:
        remove_member(world, guild, index)


def _some_roles(guild: Guild, bits: int) -> list[str]:
    return [
        role_id
        for place, role_id in enumerate(guild.roles)
        if place and bits >> place % 40 & 1 and not guild.roles[role_id]["managed"]
    ][:5]


def _member_update(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    bits = bits_of(chance)
    if index is None or bits & 255 == 0:
        change_own_member(world, guild, nick=None if bits & 256 else f"bot {bits % 100}")
        return
    kind = bits >> 8 & 7
    rest = bits >> 11
    if kind < 3:
        change_member(world, guild, index, roles=_some_roles(guild, rest))
    elif kind == 3:
        change_member(world, guild, index, nick=None if rest & 1 else f"nick {rest % 1000}")
    elif kind == 4:
        until = iso(world.wall + 600) if rest & 1 else None
        change_member(world, guild, index, communication_disabled_until=until)
    elif kind == 5:
        change_member(world, guild, index, premium_since=world.now() if rest & 1 else None, pending=False)
    elif kind == 6:
        change_user(world, index, avatar=f"{noise(rest):032x}" if rest & 1 else None)
    else:
        change_user(world, index, global_name=f"Renamed {rest % 1000}" if rest & 1 else None)


def _ban_add(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance) if chance.random() < 0.7 else world.newcomer()
    if index is not None and world.people.id_of(index) != guild.fields["owner_id"]:
        ban(world, guild, index)


def _ban_remove(world: World, guild: Guild, chance: Chance) -> None:
    if guild.bans:
        unban(world, guild, min(guild.bans))


def _user_update(world: World, guild: Guild, chance: Chance) -> None:
    update_own_user(world)


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "PRESENCE_UPDATE": _presence_update,
    "GUILD_MEMBER_ADD": _member_add,
    "GUILD_MEMBER_REMOVE": _member_remove,
    "GUILD_MEMBER_UPDATE": _member_update,
    "GUILD_BAN_ADD": _ban_add,
    "GUILD_BAN_REMOVE": _ban_remove,
    "USER_UPDATE": _user_update,
}


# Request Guild Members (op 8)


def chunks(world: World, guild: Guild, request: Json, intents: int) -> list[Dispatch]:
    """Return the answer to op 8; at least one chunk, also when no member was found."""
    members, missing = _asked(world, guild, request)
    pieces = [members[start : start + CHUNK] for start in range(0, len(members), CHUNK)] or [[]]
    nonce = request.get("nonce")
    with_presences = bool(request.get("presences")) and bool(intents & Intents.GUILD_PRESENCES)
    found = []
    for place, piece in enumerate(pieces):
        d: Json = {
            "guild_id": guild.id,
            "members": piece,
            "chunk_index": place,
            "chunk_count": len(pieces),
        }
        if missing and place == 0:
            d["not_found"] = missing
        if with_presences:
            d["presences"] = _presences_of(world, guild, piece)
        if isinstance(nonce, str) and len(nonce.encode()) <= NONCE_BYTES:
            d["nonce"] = nonce
        found.append(Dispatch("GUILD_MEMBERS_CHUNK", guild.number, d))
    return found


def _asked(world: World, guild: Guild, request: Json) -> tuple[list[Json], list[Any]]:
    if "user_ids" in request:
        wanted = request["user_ids"]
        ids = (wanted if isinstance(wanted, list) else [wanted])[:ASKED]
        return _by_id(world, guild, ids)
    query = str(request.get("query", "")).casefold()
    limit = int(request.get("limit", 0))
    if not query and limit == 0:
        return [own_member(world, guild), *(member_with_user(world, guild, i) for i in guild.roster)], []
    found: list[Json] = []
    for member in _everyone(world, guild):
        if len(found) >= min(limit or ASKED, ASKED):
            break
        names = (member["user"]["username"], member["user"]["global_name"], member["nick"])
        if any(name is not None and name.casefold().startswith(query) for name in names):
            found.append(member)
    return found, []


def _everyone(world: World, guild: Guild) -> Iterable[Json]:
    yield own_member(world, guild)
    for index in guild.roster:
        yield member_with_user(world, guild, index)


def _by_id(world: World, guild: Guild, ids: list[Any]) -> tuple[list[Json], list[Any]]:
    members, missing = [], []
    for user_id in ids:
        text = str(user_id)
        member = member_of(world, guild, text) if text.isdecimal() else None
        if member is None:
            missing.append(user_id)
        else:
            members.append(member)
    return members, missing


def _presences_of(world: World, guild: Guild, members: list[Json]) -> list[Json]:
    found = []
    for member in members:
        index = world.people.index_of(member["user"]["id"])
        assert index is not None
        presence_now = guild.roster.presence(index, world.options.wall) if index in guild.roster else None
        if presence_now is not None:
            found.append(presence_now)
    return found
