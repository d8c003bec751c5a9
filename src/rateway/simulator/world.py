"""The world behind the simulated gateway: guilds, people and what happens to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from rateway.simulator.world_dispatch import Chance, Dispatch, Json, WorldOptions

ALL_INTENTS = 53_608_447


class World:
    """A seeded Discord without sockets and clocks.

    Every change goes into the `outbox` as dispatches, in the order in which Discord would send them;
    `step` makes something happen when the outbox is empty and hands out its next dispatch.
    """

    def __init__(self, options: WorldOptions | None = None) -> None:
        self.options = options or WorldOptions()
        self.wall = self.options.wall
        self.outbox: deque[Dispatch] = deque()

    @property
    def guild_ids(self) -> Sequence[int]:
        """The guilds that the bot is in, unavailable ones included."""
        raise NotImplementedError

    def is_available(self, guild_id: int) -> bool:
        """Whether the guild is not in an outage."""
        raise NotImplementedError

    def ready_user(self) -> Json:
        """The bot's own user, as READY carries it."""
        raise NotImplementedError

    def application(self) -> Json:
        """The application object of `GET /applications/@me`; READY wants its `id` and `flags`."""
        raise NotImplementedError

    def guild_create(self, guild_id: int, *, intents: int = ALL_INTENTS, large_threshold: int = 250) -> Json:
        """`d` of GUILD_CREATE with the members and presences that these intents and this threshold allow.

        A guild in an outage gives `{id, unavailable: true}`.
        """
        raise NotImplementedError

    def step(self, chance: Chance, wall: float | None = None) -> Dispatch:
        """The next event; `wall` is the time in Unix seconds, without it the world's clock goes on 1 ms."""
        raise NotImplementedError

    def drain(self) -> list[Dispatch]:
        """All that waits in the outbox, in order; what remains to be sent before worlds are compared."""
        raise NotImplementedError

    def members_chunk(self, request: Json, *, intents: int = ALL_INTENTS) -> list[Dispatch]:
        """The GUILD_MEMBERS_CHUNKs that answer op 8's `d`, at most 1,000 members each."""
        raise NotImplementedError

    def voice_update(self, request: Json) -> list[Dispatch]:
        """What op 4's `d` brings: VOICE_STATE_UPDATE, and VOICE_SERVER_UPDATE when a channel was joined."""
        raise NotImplementedError

    def soundboard_sounds(self, guild_ids: Iterable[int | str]) -> list[Dispatch]:
        """One SOUNDBOARD_SOUNDS for each of op 31's guilds that the bot is in."""
        raise NotImplementedError

    def channel_info(self, request: Json) -> list[Dispatch]:
        """CHANNEL_INFO for op 43's `d`."""
        raise NotImplementedError

    def own_presence(self, status: str, activities: list[Json]) -> list[Dispatch]:
        """The bot's presence (op 2, op 3) in each of its guilds."""
        raise NotImplementedError

    def outage(self, guild_id: int) -> None:
        """The guild becomes unavailable: GUILD_DELETE with `unavailable: true`."""
        raise NotImplementedError

    def recover(self, guild_id: int) -> None:
        """The guild comes back: GUILD_CREATE."""
        raise NotImplementedError

    def join(self, guild_id: int | None = None) -> int:
        """The bot joins a guild (a new one without `guild_id`): GUILD_CREATE."""
        raise NotImplementedError

    def leave(self, guild_id: int) -> None:
        """The bot is removed from a guild: GUILD_DELETE."""
        raise NotImplementedError

    def state(self) -> dict[str, dict[str, Json]]:
        """Kind of entity → key → entity: what a perfect cache would hold now."""
        raise NotImplementedError


def visible(dispatch: Dispatch, intents: int) -> bool:
    """Whether a session with these intents receives the dispatch."""
    raise NotImplementedError


def trimmed(dispatch: Dispatch, intents: int) -> Json:
    """The dispatch's `d` as a session with these intents sees it: without MESSAGE_CONTENT, no content."""
    raise NotImplementedError
