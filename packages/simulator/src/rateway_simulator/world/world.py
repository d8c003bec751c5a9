"""The world behind the simulated gateway: guilds, people and what happens to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from rateway_protocol.discord.intents import PRIVILEGED, Intents
from rateway_simulator.payloads.guild import found, guild_index, guild_number
from rateway_simulator.world import application as world_application
from rateway_simulator.world import channels as world_channels
from rateway_simulator.world import expressions as world_expressions
from rateway_simulator.world import guilds as world_guilds
from rateway_simulator.world import members as world_members
from rateway_simulator.world import messages as world_messages
from rateway_simulator.world import moderation as world_moderation
from rateway_simulator.world import threads as world_threads
from rateway_simulator.world import voice as world_voice
from rateway_simulator.world.application import Application
from rateway_simulator.world.dispatch import Chance, Dispatch, Json, WorldOptions
from rateway_simulator.world.guild import Guild, fold, unfold
from rateway_simulator.world.messages import DirectMessages
from rateway_simulator.world.mix import Mix
from rateway_simulator.world.people import BOT_ID, BOT_INDEX, DISCORD_EPOCH_MS, People, iso
from rateway_simulator.world.snapshot import ALL_INTENTS, guild_create, state
from rateway_simulator.world.visibility import trimmed, visible

__all__ = ["ALL_INTENTS", "World", "trimmed", "visible"]

_BOT: Final = BOT_INDEX
# Which flag of the application says that a privileged intent is switched on (docs: Application, Application Flags).
_LIMITED_FLAGS: Final = {
    int(Intents.GUILD_PRESENCES): 1 << 13,
    int(Intents.GUILD_MEMBERS): 1 << 15,
    int(Intents.MESSAGE_CONTENT): 1 << 19,
}
_NEWCOMERS: Final = BOT_INDEX + 1
# How often a guild of a world too large for memory takes the place of an active one.
_ROTATION: Final = 0.002
# What a draw that cannot happen (nothing left to delete) is replaced by, so many times.
_DRAWS: Final = 16

Action = Callable[["World", Guild, Chance], None]

_ACTIONS: Final[Mapping[str, Action]] = {
    **world_application.ACTIONS,
    **world_channels.ACTIONS,
    **world_expressions.ACTIONS,
    **world_guilds.ACTIONS,
    **world_members.ACTIONS,
    **world_messages.ACTIONS,
    **world_moderation.ACTIONS,
    **world_threads.ACTIONS,
    **world_voice.ACTIONS,
}


class World:
    """A seeded Discord without sockets and clocks.

    Every change goes into the `outbox` as dispatches, in the order in which Discord would send them;
    `step` makes something happen when the outbox is empty and hands out its next dispatch.
    """

    def __init__(self, options: WorldOptions | None = None) -> None:
        self.options = options = options or WorldOptions()
        self.wall = options.wall
        self.outbox: deque[Dispatch] = deque()
        self.people = People(options.seed)
        self.bot_id = BOT_ID
        self.people.change(_BOT, **_bot_user())
        self.app = Application(self.bot_id, self.people.user(0))
        self.direct = DirectMessages()
        # Webhook id or invite code → number of its guild.
        self.places: dict[str, int] = {}
        self.mix = Mix(options.mix)
        # User index → guilds that the user joined after the beginning.
        self.travels: dict[int, list[int]] = {}
        self.unavailable: set[int] = set()
        self.left: list[int] = []
        self._last_id = 0
        self._newcomer = _NEWCOMERS
        self._next_guild = options.guilds
        self._guilds: dict[int, float] = {guild_number(n): options.wall for n in range(options.guilds)}
        self._unfolded: dict[int, Guild] = {}
        self._folded: dict[int, bytes] = {}
        self._pool: list[int] = list(self._guilds)
        fits = options.guilds <= options.unfolded_guilds
        self._room = options.unfolded_guilds if fits else max(1, options.unfolded_guilds // 2)
        # Where things happen now: all guilds, or half of what fits in memory; the other half is for lookups.
        self._active: list[int] = self._pool[: self._room]

    # Facts

    @property
    def guild_ids(self) -> Sequence[int]:
        """The guilds that the bot is in, unavailable ones included."""
        return tuple(self._guilds)

    def is_available(self, guild_id: int) -> bool:
        """Whether the bot is in the guild and it is not in an outage."""
        return guild_id in self._guilds and guild_id not in self.unavailable

    def ready_user(self) -> Json:
        """The bot's own user, as READY and `GET /users/@me` carry it."""
        return {
            **self.people.user(_BOT),
            "verified": True,
            "mfa_enabled": True,
            "email": None,
            "flags": 0,
            "locale": "en-US",
            "premium_type": 0,
        }

    def application(self, privileged_intents: int = PRIVILEGED) -> Json:
        """The application object of `GET /applications/@me`; READY wants its `id` and `flags`.

        The flags say which *privileged_intents* are switched on, as those of a bot in few guilds do.
        """
        switches = sum(flag for intent, flag in _LIMITED_FLAGS.items() if privileged_intents & intent)
        flags = self.app.d["flags"] & ~sum(_LIMITED_FLAGS.values()) | switches
        return {**self.app.d, "flags": flags, "approximate_guild_count": len(self._guilds)}

    def now(self) -> str:
        """The world's time as Discord writes it."""
        return iso(self.wall)

    def snowflake(self) -> str:
        """A new id: of this millisecond, and greater than every one before."""
        number = int(self.wall * 1000) - DISCORD_EPOCH_MS << 22
        if number <= self._last_id:
            number = self._last_id + 1
        self._last_id = number
        return str(number)

    # Guilds

    def has_guild(self, number: int) -> bool:
        """Whether the bot is in the guild."""
        return number in self._guilds

    def guild(self, number: int) -> Guild:
        """The guild, unfolded; KeyError when the bot is not in it."""
        guild = self._unfolded.get(number)
        if guild is None:
            guild = self._unfolded[number] = self._grown(number)
            self._folded.pop(number, None)
        return guild

    def guild_with_channel(self, channel_id: str) -> Guild | None:
        """The available guild that a channel or thread is in.

        What the seed gave has its guild's number above the last 22 bits; what came later is looked for.
        """
        if not channel_id.isdecimal():
            return None
        seeded = int(channel_id) >> 22 << 22
        if self.is_available(seeded):
            guild = self.guild(seeded)
            if guild.place(channel_id) is not None or channel_id in guild.archived:
                return guild
        for number in (*self._unfolded, *self._folded):
            guild = self.guild(number)
            if number not in self.unavailable and (guild.place(channel_id) or channel_id in guild.archived):
                return guild
        return None

    def _grown(self, number: int) -> Guild:
        joined = self._guilds[number]
        index = guild_index(number)
        assert index is not None
        first, count = self.population(index)
        guild = found(self.options, self.people, index, first, count, self.bot_id, joined)
        data = self._folded.get(number)
        return guild if data is None else unfold(data, guild)

    def population(self, index: int) -> tuple[int, int]:
        """Index of the first person and number of people, without the bot, that a guild begins with."""
        options = self.options
        count = max(0, options.members_per_guild - 1)
        if index == 0:
            return 0, max(count, options.largest_guild - 1)
        # Neighbours share two people in five.
        offset = max(count, options.largest_guild - 1) * 3 // 5
        return offset + (index - 1) * (count * 3 // 5), count

    def homes(self, person: int) -> list[int]:
        """The available guilds of which a person, by index, is a member."""
        near: list[int] = []
        if person < _BOT:
            near.append(guild_number(0))
            first, count = self.population(1)
            stride = max(1, count * 3 // 5)
            last = 1 + (person - first) // stride
            near.extend(guild_number(n) for n in range(max(1, last - 2), max(1, last + 1)))
        near.extend(self.travels.get(person, ()))
        return [
            number
            for number in dict.fromkeys(near)
            if self.is_available(number) and person in self.guild(number).roster
        ]

    def pick(self, chance: Chance) -> Guild | None:
        """One of the active guilds, None when there is none."""
        active = self._active
        if not active:
            return None
        return self.guild(active[int(chance.random() * len(active))])

    def activate(self, number: int) -> None:
        """The guild is there: things may happen in it."""
        if number not in self._guilds:
            self._guilds[number] = self.wall
            self._pool.append(number)
        self.unavailable.discard(number)
        self._active.append(number)

    def deactivate(self, number: int, *, gone: bool) -> None:
        """The guild is in an outage, or the bot is not in it any more and all about it is forgotten."""
        if number in self._active:
            self._active.remove(number)
        if not gone:
            self.unavailable.add(number)
            return
        self.unavailable.discard(number)
        del self._guilds[number]
        self._pool.remove(number)
        self.left.append(number)
        self._unfolded.pop(number, None)
        self._folded.pop(number, None)
        for person, numbers in list(self.travels.items()):
            if number in numbers:
                numbers.remove(number)
                if not numbers:
                    del self.travels[person]

    def new_guild(self) -> int:
        """The number of a guild in which the bot has never been."""
        self._next_guild += 1
        return guild_number(self._next_guild - 1)

    def newcomer(self) -> int:
        """The index of a person whom no guild has seen."""
        self._newcomer += 1
        return self._newcomer - 1

    # Events

    def emit(
        self,
        name: str,
        guild: Guild | None,
        d: Json,
        *,
        direct: bool = False,
        own: bool = False,
        revealed: bool = False,
    ) -> None:
        """Put a dispatch into the outbox; it is told to nobody while its guild is in an outage."""
        if guild is None:
            self.outbox.append(Dispatch(name, None, d, direct, own, revealed))
            return
        guild.touched = True
        if guild.number not in self.unavailable:
            self.outbox.append(Dispatch(name, guild.number, d, direct, own, revealed))

    def step(self, chance: Chance, wall: float | None = None, guild_id: int | None = None) -> Dispatch:
        """The next event; `wall` is the time in Unix seconds, without it the world's clock goes on 1 ms.

        With `guild_id` it happens in that guild, unless something is still waiting in the outbox.
        """
        self.wall = self.wall + 0.001 if wall is None else wall
        outbox = self.outbox
        if not outbox:
            self._happen(chance, guild_id)
        return outbox.popleft()

    def _happen(self, chance: Chance, guild_id: int | None) -> None:
        if len(self._unfolded) > self.options.unfolded_guilds:
            self._fold()
        if len(self._active) < len(self._pool) and chance.random() < _ROTATION:
            self._rotate(chance)
        chosen = self.guild(guild_id) if guild_id is not None and self.is_available(guild_id) else None
        for _ in range(_DRAWS):
            guild = chosen or self.pick(chance)
            if guild is None:
                break
            _ACTIONS[self.mix.draw(chance)](self, guild, chance)
            if self.outbox:
                return
        # Nothing that was drawn is possible here, or all guilds are away.
        world_members.update_own_user(self)

    def _rotate(self, chance: Chance) -> None:
        number = self._pool[int(chance.random() * len(self._pool))]
        if self._active and number not in self.unavailable and number not in self._active:
            self._active[int(chance.random() * len(self._active))] = number

    def _fold(self) -> None:
        """Put guilds away, the longest unfolded first, until a quarter of the places is free."""
        keep = self.options.unfolded_guilds * 3 // 4
        active = set(self._active)
        numbers = sorted(self._unfolded, key=active.__contains__)
        for number in numbers[: len(numbers) - keep]:
            guild = self._unfolded.pop(number)
            if guild.touched:
                self._folded[number] = fold(guild)

    def drain(self) -> list[Dispatch]:
        """All that waits in the outbox, in order; what remains to be sent before worlds are compared."""
        waiting = list(self.outbox)
        self.outbox.clear()
        return waiting

    # Snapshots and replies

    def guild_create(
        self, guild_id: int, *, intents: int = ALL_INTENTS, large_threshold: int = 250, fresh: bool = False
    ) -> Json:
        """`d` of GUILD_CREATE with the members and presences that these intents and this threshold allow.

        A guild in an outage gives `{id, unavailable: true}`. `fresh` is a join: without `unavailable`.
        Raises KeyError when the bot is not in the guild.
        """
        if guild_id in self.unavailable:
            return {"id": str(guild_id), "unavailable": True}
        guild = self._unfolded.get(guild_id) or self._grown(guild_id)
        d = guild_create(self, guild, intents, large_threshold)
        if fresh:
            del d["unavailable"]
        return d

    def state(
        self, kinds: Iterable[str] | None = None, guild_ids: Iterable[int] | None = None
    ) -> dict[str, dict[str, Json]]:
        """Kind of entity → key → entity: what a perfect cache would hold now (see `world_snapshot.state`)."""
        numbers = [n for n in (self._guilds if guild_ids is None else guild_ids) if n in self._guilds]
        guilds = [self._unfolded.get(number) or self._grown(number) for number in numbers]
        return state(self, guilds, None if kinds is None else frozenset(kinds))

    def members_chunk(self, request: Json, *, intents: int = ALL_INTENTS) -> list[Dispatch]:
        """The GUILD_MEMBERS_CHUNKs that answer op 8's `d`, at most 1,000 members each; none for a strange guild."""
        number = _number(request.get("guild_id"))
        if number is None or not self.is_available(number):
            return []
        return world_members.chunks(self, self.guild(number), request, intents)

    def voice_update(self, request: Json) -> list[Dispatch]:
        """What op 4's `d` brings: VOICE_STATE_UPDATE, and VOICE_SERVER_UPDATE when a channel was joined.

        What waited in the outbox comes first, so that the order of events is kept.
        """
        number = _number(request.get("guild_id"))
        if number is not None and self.is_available(number):
            world_voice.own_voice(self, self.guild(number), request)
        return self.drain()

    def soundboard_sounds(self, guild_ids: Iterable[int | str]) -> list[Dispatch]:
        """One SOUNDBOARD_SOUNDS for each of op 31's guilds that the bot is in."""
        found = []
        for guild_id in guild_ids:
            number = _number(guild_id)
            if number is not None and self.is_available(number):
                guild = self.guild(number)
                d = {"guild_id": guild.id, "soundboard_sounds": list(guild.sounds.values())}
                found.append(Dispatch("SOUNDBOARD_SOUNDS", number, d))
        return found

    def channel_info(self, request: Json) -> list[Dispatch]:
        """CHANNEL_INFO for op 43's `d`; none for a strange guild."""
        number = _number(request.get("guild_id"))
        if number is None or not self.is_available(number):
            return []
        return [world_voice.channel_info(self.guild(number), request.get("fields") or [])]

    def own_presence(self, status: str, activities: list[Json]) -> list[Dispatch]:
        """The bot's presence (op 2, op 3): Discord tells the bot nothing of it, members see it."""
        self.app.presence = {"status": status, "activities": activities}
        return []

    # The bot's guilds

    def outage(self, guild_id: int) -> None:
        """The guild becomes unavailable: GUILD_DELETE with `unavailable: true`."""
        world_guilds.outage(self, guild_id)

    def recover(self, guild_id: int) -> None:
        """The guild comes back: GUILD_CREATE."""
        world_guilds.recover(self, guild_id)

    def join(self, guild_id: int | None = None) -> int:
        """The bot joins a guild (a new one without `guild_id`): GUILD_CREATE.

        Raises ValueError for an id that no guild of the world can have.
        """
        return world_guilds.join(self, guild_id)

    def leave(self, guild_id: int) -> None:
        """The bot is removed from a guild: GUILD_DELETE."""
        world_guilds.leave(self, guild_id)


def _number(value: object) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return None


def _bot_user() -> Json:
    return {
        "username": "simulated-bot",
        "discriminator": "4242",
        "global_name": None,
        "avatar": None,
        "bot": True,
        "system": False,
        "banner": None,
        "accent_color": None,
        "public_flags": 65536,
        "avatar_decoration_data": None,
        "collectibles": None,
        "primary_guild": None,
        "bio": "",
    }
