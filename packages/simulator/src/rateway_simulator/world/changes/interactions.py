"""The application's commands, interactions with it, entitlements and subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.values import Json, iso
from rateway_simulator.world.application import Asked
from rateway_simulator.world.changes.members import bits_of, member_of, user_of
from rateway_simulator.world.changes.messages import pick_channel
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Interactions remembered for their answers; the oldest go first.
_REMEMBERED: Final = 10_000
# Types of a command's options (docs: Application Commands, Application Command Option Type).
_NESTED: Final = frozenset({1, 2})
_OPTION_STRING: Final = 3
_OPTION_INTEGER: Final = 4
_OPTION_BOOLEAN: Final = 5
_OPTION_USER: Final = 6
_OPTION_CHANNEL: Final = 7
_OPTION_ROLE: Final = 8
_OPTION_MENTIONABLE: Final = 9
_OPTION_NUMBER: Final = 10


# Type of an option that is not registered, by its value: {name: value} of a dict is a subcommand.
_TYPE_OF: Final[Mapping[type, int]] = {
    str: _OPTION_STRING,
    bool: _OPTION_BOOLEAN,
    int: _OPTION_INTEGER,
    float: _OPTION_NUMBER,
    dict: 1,
}
# How a value is written for an option of a type: people write ids as numbers, and numbers as they come.
_CONVERSIONS: Final[Mapping[int, Callable[[Any], Any]]] = {
    _OPTION_STRING: str,
    _OPTION_INTEGER: int,
    _OPTION_BOOLEAN: bool,
    _OPTION_USER: str,
    _OPTION_CHANNEL: str,
    _OPTION_ROLE: str,
    _OPTION_MENTIONABLE: str,
    _OPTION_NUMBER: float,
    11: str,
}


# A command's fields where they are not given (docs: Application Commands, Application Command Structure).
_DEFAULTS: Final[Json] = {
    "id": "",
    "type": 1,
    "application_id": "",
    "name": "",
    "name_localizations": None,
    "description": "",
    "description_localizations": None,
    "options": [],
    "default_member_permissions": None,
    "dm_permission": True,
    "default_permission": True,
    "nsfw": False,
    "integration_types": [0],
    "contexts": None,
}


# Changes


def _without_nulls(value: Any) -> Any:
    """Options as Discord answers them: optional fields that are null are not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def command(world: World, guild_id: str | None, body: Json, command_id: str | None = None) -> Json:
    """Register a command or replace one of the same name and type; every documented field is filled in."""
    scope = world.app.commands.setdefault(guild_id, {})
    known = {} if command_id is None else scope.get(command_id, {})
    kind = body.get("type") or known.get("type", 1)
    if command_id is None:
        same = (c for c in scope.values() if c["name"] == body.get("name") and c["type"] == kind)
        command_id = next((c["id"] for c in same), None) or world.snowflake()
    # What is null stands for Discord's default.
    given = {key: value for key, value in body.items() if value is not None}
    reset = {key: _DEFAULTS[key] for key, value in body.items() if value is None and key in _DEFAULTS}
    if "options" in given:
        given["options"] = _without_nulls(given["options"])
    d = {
        **_DEFAULTS,
        **scope.get(command_id, {}),
        **reset,
        **given,
        "id": command_id,
        "type": kind,
        "application_id": world.app.id,
        "version": world.snowflake(),
    }
    if guild_id is not None:
        d["guild_id"] = guild_id
    scope[command_id] = d
    return d


def ask(
    world: World, guild: Guild | None, channel_id: str, user_id: str, kind: int, data: Json, **fields: Any
) -> Asked:
    """Let a user interact with the bot: INTERACTION_CREATE, to the guild's shard or to shard 0."""
    interaction_id = world.snowflake()
    token = shapes.interaction_token(interaction_id)
    where: Json = {"channel_id": channel_id}
    if guild is None:
        where |= {
            "user": user_of(world, user_id),
            "channel": world.direct.channels.get(channel_id),
            "context": 1,
            "authorizing_integration_owners": {"1": user_id},
        }
    else:
        member = member_of(world, guild, user_id) or {"user": user_of(world, user_id), "roles": []}
        channel = guild.place(channel_id)
        where |= {
            "guild_id": guild.id,
            "guild": {key: guild.fields[key] for key in ("id", "features")} | {"locale": "en-US"},
            "guild_locale": "en-US",
            "channel": {**(channel or {}), "permissions": "2248473465835073"},
            "member": {**member, "permissions": "2248473465835073"},
            "authorizing_integration_owners": {"0": guild.id},
        }
    d = shapes.interaction(interaction_id, world.app.id, kind, data, token, **{**where, **fields})
    asked = Asked(d, None if guild is None else guild.number, channel_id, world.wall)
    world.app.asked[token] = asked
    if len(world.app.asked) > _REMEMBERED:
        del world.app.asked[next(iter(world.app.asked))]
    world.emit("INTERACTION_CREATE", guild, d, direct=guild is None)
    return asked


def command_data(world: World, guild: Guild | None, name: str, options: list[Json], kind: int = 1) -> Json:
    """Return the `data` of a command's interaction, with what its options name resolved."""
    known = world.app.find(name, None if guild is None else guild.id)
    data: Json = {
        "id": known["id"] if known else world.snowflake(),
        "name": name,
        "type": kind,
        "options": options,
    }
    if known and "guild_id" in known:
        data["guild_id"] = known["guild_id"]
    resolved: Json = {}
    for option in _leaves(options):
        value = str(option.get("value"))
        if (
            option["type"] in (_OPTION_USER, _OPTION_MENTIONABLE)
            and (user := user_of(world, value)) is not None
        ):
            resolved.setdefault("users", {})[value] = user
            member = None if guild is None else member_of(world, guild, value)
            if member is not None:
                kept = {key: item for key, item in member.items() if key not in ("user", "deaf", "mute")}
                resolved.setdefault("members", {})[value] = {**kept, "permissions": "2248473465835073"}
        elif guild is not None and option["type"] == _OPTION_CHANNEL and value in guild.channels:
            channel = guild.channels[value]
            keys = ("id", "name", "type", "parent_id", "flags", "position")
            resolved.setdefault("channels", {})[value] = {
                **{key: channel[key] for key in keys},
                "permissions": "2248473465835073",
            }
        elif guild is not None and option["type"] == _OPTION_ROLE and value in guild.roles:
            resolved.setdefault("roles", {})[value] = guild.roles[value]
    if resolved:
        data["resolved"] = resolved
    return data


def typed_options(known: Json | None, given: Json | list[Json]) -> list[Json]:
    """Return a command's options as Discord sends them, from `{name: value}` or a list; types are the registered ones.

    In the short form the value of a subcommand (or group) is again `{name: value}`. An option that is not registered
    has the type of its value.
    """
    declared = {option["name"]: option for option in (known or {}).get("options") or []}
    if isinstance(given, dict):
        given = [{"name": name, "value": value} for name, value in given.items()]
    typed = []
    for option in given:
        registered = declared.get(option["name"])
        value = option.get("options", option.get("value"))
        kind = option.get("type") or (registered["type"] if registered else _TYPE_OF.get(type(value), 3))
        if kind in _NESTED:
            nested = typed_options(registered, value or [])
            typed.append({"name": option["name"], "type": kind, "options": nested})
        else:
            converted = _CONVERSIONS.get(kind, lambda plain: plain)(value)
            typed.append({**option, "type": kind, "value": converted})
    return typed


def _leaves(options: list[Json]) -> list[Json]:
    """Return the options with values, those of subcommands too."""
    return [
        leaf
        for option in options
        for leaf in (_leaves(option["options"]) if "options" in option else [option])
    ]


# Chance


def _interaction(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    channel = pick_channel(guild, chance)
    if index is None or channel is None:
        return
    bits = bits_of(chance)
    user_id = world.people.id_of(index)
    scope = {**world.app.commands[None], **world.app.commands.get(guild.id, {})}
    known = [command for command in scope.values() if command["type"] == 1]
    if known:
        chosen = known[bits % len(known)]
        name, options = chosen["name"], _filled(guild, chosen["options"], user_id, bits >> 4)
    else:
        name = "ping"
        options = (
            [{"name": "text", "type": _OPTION_STRING, "value": shapes.text(bits >> 4)}] if bits & 4 else []
        )
    ask(world, guild, channel["id"], user_id, 2, command_data(world, guild, name, options))


def _filled(guild: Guild, declared: list[Json], user_id: str, bits: int) -> list[Json]:
    """Fill in a command's options as a user does: all that are required, and some of the others."""
    nested = [option for option in declared if option["type"] in _NESTED]
    if nested:
        chosen = nested[bits % len(nested)]
        options = _filled(guild, chosen.get("options") or [], user_id, bits >> 2)
        return [{"name": chosen["name"], "type": chosen["type"], "options": options}]
    found = []
    for place, option in enumerate(declared):
        if option.get("required") or bits >> place & 1:
            value = _value(guild, option, user_id, bits)
            if value is not None:
                found.append({"name": option["name"], "type": option["type"], "value": value})
    return found


def _value(guild: Guild, option: Json, user_id: str, bits: int) -> Any:
    if option.get("choices"):
        return option["choices"][bits % len(option["choices"])]["value"]
    values: dict[int, Callable[[], Any]] = {
        _OPTION_STRING: lambda: shapes.text(bits)[: option.get("max_length") or None],
        _OPTION_INTEGER: lambda: int(option.get("min_value") or 1),
        _OPTION_BOOLEAN: lambda: bool(bits & 1),
        _OPTION_USER: lambda: user_id,
        _OPTION_CHANNEL: lambda: next(iter(guild.channels), None),
        _OPTION_ROLE: lambda: guild.id,
        _OPTION_MENTIONABLE: lambda: user_id,
        _OPTION_NUMBER: lambda: float(option.get("min_value") or 0.5),
    }
    make = values.get(option["type"])
    return None if make is None else make()


def _permissions_update(world: World, guild: Guild, chance: Chance) -> None:
    scope = world.app.commands[None]
    d = {
        "id": next(iter(scope), world.app.id),
        "application_id": world.app.id,
        "guild_id": guild.id,
        "permissions": [{"id": guild.id, "type": 1, "permission": chance.random() < 0.5}],
    }
    world.emit("APPLICATION_COMMAND_PERMISSIONS_UPDATE", guild, d)


def _entitlement_create(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is None or len(world.app.entitlements) > 500:
        return
    entitlement_id = world.snowflake()
    of_guild = chance.random() < 0.5
    d = payloads.entitlement(
        entitlement_id,
        world.app.id,
        None if of_guild else world.people.id_of(index),
        guild.id if of_guild else None,
        world.wall,
    )
    world.app.entitlements[entitlement_id] = d
    world.emit("ENTITLEMENT_CREATE", None, d)


def _entitlement_update(world: World, guild: Guild, chance: Chance) -> None:
    for entitlement_id, old in world.app.entitlements.items():
        d = world.app.entitlements[entitlement_id] = {**old, "ends_at": world.now()}
        world.emit("ENTITLEMENT_UPDATE", None, d)
        return


def _entitlement_delete(world: World, guild: Guild, chance: Chance) -> None:
    for entitlement_id in list(world.app.entitlements):
        world.emit(
            "ENTITLEMENT_DELETE", None, {**world.app.entitlements.pop(entitlement_id), "deleted": True}
        )
        return


def _subscription_create(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is not None and len(world.app.subscriptions) < 500:
        subscription_id = world.snowflake()
        d = payloads.subscription(subscription_id, world.people.id_of(index), world.wall)
        world.app.subscriptions[subscription_id] = d
        world.emit("SUBSCRIPTION_CREATE", None, d)


def _subscription_update(world: World, guild: Guild, chance: Chance) -> None:
    for subscription_id, old in world.app.subscriptions.items():
        changes = {"status": 1, "canceled_at": world.now(), "current_period_end": iso(world.wall + 86_400)}
        d = world.app.subscriptions[subscription_id] = {**old, **changes}
        world.emit("SUBSCRIPTION_UPDATE", None, d)
        return


def _subscription_delete(world: World, guild: Guild, chance: Chance) -> None:
    for subscription_id in list(world.app.subscriptions):
        world.emit("SUBSCRIPTION_DELETE", None, {**world.app.subscriptions.pop(subscription_id), "status": 2})
        return


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "INTERACTION_CREATE": _interaction,
    "APPLICATION_COMMAND_PERMISSIONS_UPDATE": _permissions_update,
    "ENTITLEMENT_CREATE": _entitlement_create,
    "ENTITLEMENT_UPDATE": _entitlement_update,
    "ENTITLEMENT_DELETE": _entitlement_delete,
    "SUBSCRIPTION_CREATE": _subscription_create,
    "SUBSCRIPTION_UPDATE": _subscription_update,
    "SUBSCRIPTION_DELETE": _subscription_delete,
}
