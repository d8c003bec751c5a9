"""Changes of webhooks: they are made, changed, deleted, and follow channels of other guilds."""

from __future__ import annotations

from typing import Any, Final

from rateway_simulator.payloads.values import Json, noise
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Types of webhooks (docs: Webhook, Webhook Types).
INCOMING: Final = 1
FOLLOWER: Final = 2


def create_webhook(world: World, guild: Guild, channel_id: str, name: str, **fields: Any) -> Json:
    """Create a webhook; one that can be executed (with `user`, by REST) has a token."""
    webhook_id = world.snowflake()
    d: Json = {
        "id": webhook_id,
        "type": INCOMING,
        "guild_id": guild.id,
        "channel_id": channel_id,
        "name": name,
        "avatar": None,
        "application_id": None,
        "token": f"{noise(int(webhook_id)):016x}{noise(int(webhook_id), 1):016x}",
        **fields,
    }
    guild.webhooks[webhook_id] = d
    world.places[webhook_id] = guild.number
    _tell(world, guild, channel_id)
    return d


def change_webhook(world: World, guild: Guild, webhook_id: str, **fields: Any) -> Json:
    """Change a webhook; when it moves, WEBHOOKS_UPDATE is sent for both channels."""
    old = guild.webhooks[webhook_id]
    d = guild.webhooks[webhook_id] = {**old, **fields}
    for channel_id in dict.fromkeys((old["channel_id"], d["channel_id"])):
        _tell(world, guild, channel_id)
    return d


def delete_webhook(world: World, guild: Guild, webhook_id: str) -> None:
    """Delete a webhook."""
    world.places.pop(webhook_id, None)
    _tell(world, guild, guild.webhooks.pop(webhook_id)["channel_id"])


def find_webhook(world: World, webhook_id: str) -> tuple[Guild, Json] | None:
    """Return the webhook with this id, and its guild; None when there is none."""
    number = world.places.get(webhook_id)
    if number is None or not world.is_available(number):
        return None
    guild = world.guild(number)
    d = guild.webhooks.get(webhook_id)
    return None if d is None else (guild, d)


def _tell(world: World, guild: Guild, channel_id: str) -> None:
    world.emit("WEBHOOKS_UPDATE", guild, {"guild_id": guild.id, "channel_id": channel_id})
