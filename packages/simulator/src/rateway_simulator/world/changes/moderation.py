"""Changes by moderators and integrations: audit log, auto moderation, integrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import TEXT
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import bits_of
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Audit log events (docs: Audit Log, Audit Log Events) that name a member.
_KICK: Final = 20
_MEMBER_UPDATE: Final = 24
_MESSAGE_DELETE: Final = 72
# Entries of the audit log that are remembered.
_AUDITED: Final = 200


def audit(
    world: World,
    guild: Guild,
    action: int,
    user_id: str,
    target_id: str | None,
    changes: list[Json],
    **fields: Any,
) -> None:
    """Write an entry into the audit log."""
    entry: Json = {
        "id": world.snowflake(),
        "action_type": action,
        "user_id": user_id,
        "target_id": target_id,
        "changes": changes,
        **fields,
    }
    guild.audit_log = [*guild.audit_log[-_AUDITED + 1 :], entry]
    d = {"guild_id": guild.id, **entry}
    world.emit("GUILD_AUDIT_LOG_ENTRY_CREATE", guild, d)


def _audit_entry(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    other = guild.roster.pick(chance)
    if index is None or other is None:
        return
    bits = bits_of(chance)
    user_id, target_id = world.people.id_of(index), world.people.id_of(other)
    if bits & 3 == 0:
        options = {"channel_id": next(iter(guild.channels), guild.id), "count": "1"}
        audit(world, guild, _MESSAGE_DELETE, user_id, target_id, [], options=options)
    elif bits & 3 == 1:
        audit(world, guild, _KICK, user_id, target_id, [], reason="Spam")
    else:
        change = {"key": "nick", "old_value": "before", "new_value": f"after {bits % 100}"}
        audit(world, guild, _MEMBER_UPDATE, user_id, target_id, [change])


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of objects that moderators create, switch on and off, and delete."""

    events: str
    """What the names of its events begin with."""
    objects: Callable[[Guild], dict[str, Json]]
    most: int
    """Objects in a guild, at most."""
    make: Callable[[World, Guild, Chance, str], Json]
    """Makes one with that id."""
    deleted: Callable[[Guild, Json], Json]
    """The content of the event of its deletion."""


def _rule(world: World, guild: Guild, chance: Chance, rule_id: str) -> Json:
    alert = next((key for key, d in guild.channels.items() if d["type"] == TEXT), None)
    name = f"Rule {bits_of(chance) % 100}"
    return payloads.automod_rule(rule_id, guild.id, guild.fields["owner_id"], name, alert)


def _integration(world: World, guild: Guild, chance: Chance, integration_id: str) -> Json:
    kind = ("twitch", "youtube", "discord")[int(chance.random() * 3)]
    name = f"{kind} {len(guild.integrations)}"
    return payloads.integration(integration_id, guild.id, name, kind, world.wall, world.app.brief())


def _deleted_integration(guild: Guild, d: Json) -> Json:
    application = {"application_id": d["application"]["id"]} if "application" in d else {}
    return {"id": d["id"], "guild_id": guild.id, **application}


_KINDS: Final = (
    _Kind("AUTO_MODERATION_RULE", lambda guild: guild.rules, 6, _rule, lambda guild, d: d),
    _Kind("INTEGRATION", lambda guild: guild.integrations, 9, _integration, _deleted_integration),
)


def _create(kind: _Kind, world: World, guild: Guild, chance: Chance) -> None:
    objects = kind.objects(guild)
    if len(objects) < kind.most:
        object_id = world.snowflake()
        d = objects[object_id] = kind.make(world, guild, chance, object_id)
        world.emit(f"{kind.events}_CREATE", guild, d)


def _update(kind: _Kind, world: World, guild: Guild, chance: Chance) -> None:
    objects = kind.objects(guild)
    if not objects:
        _create(kind, world, guild, chance)
        return
    object_id, old = next(iter(objects.items()))
    d = objects[object_id] = {**old, "enabled": not old["enabled"]}
    world.emit(f"{kind.events}_UPDATE", guild, d)


def _delete(kind: _Kind, world: World, guild: Guild, chance: Chance) -> None:
    objects = kind.objects(guild)
    if not objects:
        _create(kind, world, guild, chance)
    d = objects.pop(next(iter(objects)))
    world.emit(f"{kind.events}_DELETE", guild, kind.deleted(guild, d))


def _rule_executed(world: World, guild: Guild, chance: Chance) -> None:
    index = guild.roster.pick(chance)
    if index is None:
        return
    for rule_id, rule in guild.rules.items():
        d: Json = {
            "guild_id": guild.id,
            "action": rule["actions"][0],
            "rule_id": rule_id,
            "rule_trigger_type": rule["trigger_type"],
            "user_id": world.people.id_of(index),
            "content": "buy spam now",
            "matched_keyword": "spam*",
            "matched_content": "spam",
            "alert_system_message_id": world.snowflake(),
        }
        text = next((key for key, channel in guild.channels.items() if channel["type"] == TEXT), None)
        if text is not None:
            d["channel_id"] = text
        world.emit("AUTO_MODERATION_ACTION_EXECUTION", guild, d)
        return


def _integrations_update(world: World, guild: Guild, chance: Chance) -> None:
    world.emit("GUILD_INTEGRATIONS_UPDATE", guild, {"guild_id": guild.id})


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "GUILD_AUDIT_LOG_ENTRY_CREATE": _audit_entry,
    "AUTO_MODERATION_ACTION_EXECUTION": _rule_executed,
    "GUILD_INTEGRATIONS_UPDATE": _integrations_update,
    **{f"{kind.events}_CREATE": partial(_create, kind) for kind in _KINDS},
    **{f"{kind.events}_UPDATE": partial(_update, kind) for kind in _KINDS},
    **{f"{kind.events}_DELETE": partial(_delete, kind) for kind in _KINDS},
}
