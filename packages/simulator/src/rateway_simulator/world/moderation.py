"""What moderators and integrations do: audit log, auto moderation, integrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import TEXT
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.members import bits_of
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
    """Something is written into the audit log."""
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


def _rule_create(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.rules) < 6:
        rule_id = world.snowflake()
        alert = next((key for key, d in guild.channels.items() if d["type"] == TEXT), None)
        name = f"Rule {bits_of(chance) % 100}"
        d = payloads.automod_rule(rule_id, guild.id, guild.fields["owner_id"], name, alert)
        guild.rules[rule_id] = d
        world.emit("AUTO_MODERATION_RULE_CREATE", guild, d)


def _rule_update(world: World, guild: Guild, chance: Chance) -> None:
    if not guild.rules:
        _rule_create(world, guild, chance)
        return
    for rule_id, old in guild.rules.items():
        d = guild.rules[rule_id] = {**old, "enabled": not old["enabled"]}
        world.emit("AUTO_MODERATION_RULE_UPDATE", guild, d)
        return


def _rule_delete(world: World, guild: Guild, chance: Chance) -> None:
    if not guild.rules:
        _rule_create(world, guild, chance)
    for rule_id in list(guild.rules):
        world.emit("AUTO_MODERATION_RULE_DELETE", guild, guild.rules.pop(rule_id))
        return


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


def _integration_create(world: World, guild: Guild, chance: Chance) -> None:
    if len(guild.integrations) > 8:
        return
    integration_id = world.snowflake()
    kind = ("twitch", "youtube", "discord")[int(chance.random() * 3)]
    name = f"{kind} {len(guild.integrations)}"
    d = payloads.integration(integration_id, guild.id, name, kind, world.wall, world.app.brief())
    guild.integrations[integration_id] = d
    world.emit("INTEGRATION_CREATE", guild, d)


def _integration_update(world: World, guild: Guild, chance: Chance) -> None:
    if not guild.integrations:
        _integration_create(world, guild, chance)
        return
    for integration_id, old in guild.integrations.items():
        d = guild.integrations[integration_id] = {**old, "enabled": not old["enabled"]}
        world.emit("INTEGRATION_UPDATE", guild, d)
        return


def _integration_delete(world: World, guild: Guild, chance: Chance) -> None:
    if not guild.integrations:
        _integration_create(world, guild, chance)
    for integration_id, old in list(guild.integrations.items()):
        del guild.integrations[integration_id]
        d: Json = {"id": integration_id, "guild_id": guild.id}
        if "application" in old:
            d["application_id"] = old["application"]["id"]
        world.emit("INTEGRATION_DELETE", guild, d)
        return


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "GUILD_AUDIT_LOG_ENTRY_CREATE": _audit_entry,
    "AUTO_MODERATION_RULE_CREATE": _rule_create,
    "AUTO_MODERATION_RULE_UPDATE": _rule_update,
    "AUTO_MODERATION_RULE_DELETE": _rule_delete,
    "AUTO_MODERATION_ACTION_EXECUTION": _rule_executed,
    "GUILD_INTEGRATIONS_UPDATE": _integrations_update,
    "INTEGRATION_CREATE": _integration_create,
    "INTEGRATION_UPDATE": _integration_update,
    "INTEGRATION_DELETE": _integration_delete,
}
