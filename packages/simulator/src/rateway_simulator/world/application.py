"""The bot's application: its object, and what belongs to it and to no guild."""

from __future__ import annotations

from dataclasses import dataclass, field

from rateway_simulator.payloads.values import Json


@dataclass(slots=True)
class Asked:
    """An interaction that the bot may answer: its payload, when it was asked, and what was answered."""

    d: Json
    guild_id: int | None
    channel_id: str
    wall: float
    # "" until the first answer, then `message`, `deferred`, `update` or `other`.
    answer: str = ""
    ephemeral: bool = False
    # The original response's message, once there is one, and all messages that answer, by id.
    original: str | None = None
    messages: dict[str, Json] = field(default_factory=dict)


class Application:
    """The part of the world that belongs to the application and to no guild."""

    def __init__(self, bot_id: str, owner: Json) -> None:
        self.id = bot_id
        self.presence: Json = {"status": "online", "activities": []}
        # Guild id (None: everywhere) → command id → command.
        self.commands: dict[str | None, dict[str, Json]] = {None: {}}
        self.asked: dict[str, Asked] = {}
        self.emojis: dict[str, Json] = {}
        self.entitlements: dict[str, Json] = {}
        self.subscriptions: dict[str, Json] = {}
        self.d: Json = {
            "id": bot_id,
            "name": "simulated-bot",
            "icon": None,
            "description": "A bot in a simulated Discord",
            "summary": "",
            "type": None,
            "bot": None,
            "rpc_origins": [],
            "bot_public": True,
            "bot_require_code_grant": False,
            "terms_of_service_url": None,
            "privacy_policy_url": None,
            "owner": owner,
            "verify_key": "0" * 64,
            "team": None,
            "primary_sku_id": None,
            "slug": None,
            "cover_image": None,
            # GATEWAY_PRESENCE, GATEWAY_GUILD_MEMBERS, GATEWAY_MESSAGE_CONTENT (limited), commands.
            "flags": 1 << 13 | 1 << 15 | 1 << 19 | 1 << 23,
            "approximate_guild_count": 0,
            "approximate_user_install_count": 0,
            "approximate_user_authorization_count": 0,
            "redirect_uris": [],
            "interactions_endpoint_url": None,
            "role_connections_verification_url": None,
            "event_webhooks_url": None,
            "event_webhooks_status": 1,
            "event_webhooks_types": [],
            "tags": ["simulated"],
            "install_params": {"scopes": ["bot", "applications.commands"], "permissions": "8"},
            "integration_types_config": {
                "0": {
                    "oauth2_install_params": {"scopes": ["bot", "applications.commands"], "permissions": "8"}
                }
            },
            "custom_install_url": None,
            "hook": True,
            "is_monetized": False,
        }

    def brief(self) -> Json:
        """Return the partial application inside messages and integrations."""
        keys = (
            "id",
            "name",
            "icon",
            "description",
            "summary",
            "bot_public",
            "bot_require_code_grant",
            "verify_key",
        )
        return {key: self.d[key] for key in keys}

    def find(self, name: str, guild_id: str | None) -> Json | None:
        """Return a command by its name, the guild's own before the ones that are everywhere."""
        for scope in (guild_id, None):
            for command in self.commands.get(scope, {}).values():
                if command["name"] == name:
                    return command
        return None
