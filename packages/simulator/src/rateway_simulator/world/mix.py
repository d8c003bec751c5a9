"""Which events happen how often: weights by event name, and the draw."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from rateway_simulator.world.dispatch import Chance

# Roughly what a large public bot sees with every intent: presences and typing, then messages and what belongs
# to them, then voice and members. What is created about as often as it is deleted keeps the world's size.
DEFAULT_MIX: Final[Mapping[str, float]] = {
    "PRESENCE_UPDATE": 4000,
    "TYPING_START": 1400,
    "MESSAGE_CREATE": 1700,
    "MESSAGE_UPDATE": 300,
    "MESSAGE_DELETE": 90,
    "MESSAGE_DELETE_BULK": 3,
    "MESSAGE_REACTION_ADD": 500,
    "MESSAGE_REACTION_REMOVE": 60,
    "MESSAGE_REACTION_REMOVE_ALL": 2,
    "MESSAGE_REACTION_REMOVE_EMOJI": 2,
    "MESSAGE_POLL_VOTE_ADD": 15,
    "MESSAGE_POLL_VOTE_REMOVE": 4,
    "VOICE_STATE_UPDATE": 600,
    "VOICE_CHANNEL_EFFECT_SEND": 4,
    "VOICE_CHANNEL_STATUS_UPDATE": 6,
    "VOICE_CHANNEL_START_TIME_UPDATE": 6,
    "VOICE_SERVER_UPDATE": 1,
    "GUILD_MEMBER_UPDATE": 400,
    "GUILD_MEMBER_ADD": 120,
    "GUILD_MEMBER_REMOVE": 110,
    "INTERACTION_CREATE": 60,
    "THREAD_CREATE": 20,
    "THREAD_UPDATE": 25,
    "THREAD_DELETE": 6,
    "THREAD_LIST_SYNC": 3,
    "THREAD_MEMBER_UPDATE": 5,
    "THREAD_MEMBERS_UPDATE": 25,
    "CHANNEL_CREATE": 8,
    "CHANNEL_UPDATE": 30,
    "CHANNEL_DELETE": 7,
    "CHANNEL_PINS_UPDATE": 6,
    "GUILD_UPDATE": 8,
    "GUILD_AUDIT_LOG_ENTRY_CREATE": 60,
    "GUILD_ROLE_CREATE": 6,
    "GUILD_ROLE_UPDATE": 12,
    "GUILD_ROLE_DELETE": 5,
    "GUILD_EMOJIS_UPDATE": 4,
    "GUILD_STICKERS_UPDATE": 2,
    "GUILD_SOUNDBOARD_SOUND_CREATE": 2,
    "GUILD_SOUNDBOARD_SOUND_UPDATE": 1,
    "GUILD_SOUNDBOARD_SOUND_DELETE": 1.5,
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": 1,
    "GUILD_BAN_ADD": 10,
    "GUILD_BAN_REMOVE": 4,
    "GUILD_INTEGRATIONS_UPDATE": 2,
    "INTEGRATION_CREATE": 2,
    "INTEGRATION_UPDATE": 2,
    "INTEGRATION_DELETE": 1.5,
    "INVITE_CREATE": 10,
    "INVITE_DELETE": 8,
    "WEBHOOKS_UPDATE": 4,
    "AUTO_MODERATION_RULE_CREATE": 2,
    "AUTO_MODERATION_RULE_UPDATE": 2,
    "AUTO_MODERATION_RULE_DELETE": 1.5,
    "AUTO_MODERATION_ACTION_EXECUTION": 6,
    "APPLICATION_COMMAND_PERMISSIONS_UPDATE": 1,
    "STAGE_INSTANCE_CREATE": 3,
    "STAGE_INSTANCE_UPDATE": 2,
    "STAGE_INSTANCE_DELETE": 2.5,
    "GUILD_SCHEDULED_EVENT_CREATE": 3,
    "GUILD_SCHEDULED_EVENT_UPDATE": 4,
    "GUILD_SCHEDULED_EVENT_DELETE": 2,
    "GUILD_SCHEDULED_EVENT_USER_ADD": 10,
    "GUILD_SCHEDULED_EVENT_USER_REMOVE": 4,
    "ENTITLEMENT_CREATE": 2,
    "ENTITLEMENT_UPDATE": 1,
    "ENTITLEMENT_DELETE": 1,
    "SUBSCRIPTION_CREATE": 1,
    "SUBSCRIPTION_UPDATE": 1,
    "SUBSCRIPTION_DELETE": 1,
    "USER_UPDATE": 0.5,
    "GUILD_CREATE": 2,
    "GUILD_DELETE": 2,
}


class Mix:
    """A draw of event names by weight."""

    def __init__(self, changes: Mapping[str, float] | None = None, *, only: bool = False) -> None:
        """`changes` replace default weights; with `only`, every name that they leave out weighs nothing.

        Raises ValueError for a name that is no event of the mix, a negative weight, or when all weigh nothing.
        """
        weights = dict.fromkeys(DEFAULT_MIX, 0.0) if only else dict(DEFAULT_MIX)
        for name, weight in (changes or {}).items():
            if name not in weights:
                raise ValueError(f"{name} is not an event that the world can make happen")
            if weight < 0:
                raise ValueError(f"the weight of {name} is {weight}; it must be 0 or more")
            weights[name] = weight
        self.names = tuple(name for name, weight in weights.items() if weight > 0)
        if not self.names:
            raise ValueError("no event has a weight above 0")
        self._sums = list(accumulate(weights[name] for name in self.names))

    def draw(self, chance: Chance) -> str:
        """Return the name of the event that is to happen."""
        return self.names[bisect(self._sums, chance.random() * self._sums[-1])]
