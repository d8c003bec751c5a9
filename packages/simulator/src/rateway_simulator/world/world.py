"""The state of the simulated Discord: its guilds, its users, its application and the outbox of dispatches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from rateway_protocol.discord.intents import PRIVILEGED, Intents
from rateway_simulator.payloads.values import DISCORD_EPOCH_MS, Json, iso
from rateway_simulator.world.application import Application
from rateway_simulator.world.direct import DirectMessages
from rateway_simulator.world.dispatch import Chance, Dispatch, WorldOptions
from rateway_simulator.world.founding import found, guild_index, guild_number
from rateway_simulator.world.guild import Guild, fold, unfold
from rateway_simulator.world.mix import Mix
from rateway_simulator.world.people import BOT_ID, BOT_INDEX, People

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


class World:
    """The state of a seeded Discord, without sockets and clocks.

    The modules beside this one change it. Every change goes into the `outbox` as dispatches, in the order in
    which Discord would send them; `steps.step` makes one when the outbox is empty and returns the next dispatch.
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
        """Return whether the bot is in the guild and it is not in an outage."""
        return guild_id in self._guilds and guild_id not in self.unavailable

    def ready_user(self) -> Json:
        """Return the bot's own user, as READY and `GET /users/@me` carry it."""
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
        """Return the application object of `GET /applications/@me`; READY wants its `id` and `flags`.

        The flags say which *privileged_intents* are switched on, as those of a bot in few guilds do.
        """
        switches = sum(flag for intent, flag in _LIMITED_FLAGS.items() if privileged_intents & intent)
        flags = self.app.d["flags"] & ~sum(_LIMITED_FLAGS.values()) | switches
        return {**self.app.d, "flags": flags, "approximate_guild_count": len(self._guilds)}

    def now(self) -> str:
        """Return the world's time as Discord writes it."""
        return iso(self.wall)

    def snowflake(self) -> str:
        """Return a new id: of this millisecond, and greater than every one before."""
        number = int(self.wall * 1000) - DISCORD_EPOCH_MS << 22
        if number <= self._last_id:
            number = self._last_id + 1
        self._last_id = number
        return str(number)

    # Guilds

    def has_guild(self, number: int) -> bool:
        """Return whether the bot is in the guild."""
        return number in self._guilds

    def guild(self, number: int) -> Guild:
        """Return the guild, unfolded; KeyError when the bot is not in it."""
        guild = self._unfolded.get(number)
        if guild is None:
            guild = self._unfolded[number] = self._grown(number)
            self._folded.pop(number, None)
        return guild

    def peek(self, number: int) -> Guild:
        """Return the guild for reading, without keeping it unfolded; KeyError when the bot is not in it."""
        return self._unfolded.get(number) or self._grown(number)

    def guild_with_channel(self, channel_id: str) -> Guild | None:
        """Return the available guild that a channel or thread is in.

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
        """Return index of the first person and number of people, without the bot, that a guild begins with."""
        options = self.options
        count = max(0, options.members_per_guild - 1)
        if index == 0:
            return 0, max(count, options.largest_guild - 1)
        # Neighbours share two people in five.
        offset = max(count, options.largest_guild - 1) * 3 // 5
        return offset + (index - 1) * (count * 3 // 5), count

    def homes(self, person: int) -> list[int]:
        """Return the available guilds of which a person, by index, is a member."""
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
        """Return one of the active guilds, None when there is none."""
        active = self._active
        if not active:
            return None
        return self.guild(active[int(chance.random() * len(active))])

    def activate(self, number: int) -> None:
        """Make the guild available: events may happen in it."""
        if number not in self._guilds:
            self._guilds[number] = self.wall
            self._pool.append(number)
        self.unavailable.discard(number)
        self._active.append(number)

    def deactivate(self, number: int, *, gone: bool) -> None:
        """Make the guild unavailable: it is in an outage, or the bot has left it."""
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
        """Return the index of a person whom no guild has seen."""
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
        """Put a dispatch into the outbox; while its guild is in an outage it is dropped."""
        if guild is None:
            self.outbox.append(Dispatch(name, None, d, direct, own, revealed))
            return
        guild.touched = True
        if guild.number not in self.unavailable:
            self.outbox.append(Dispatch(name, guild.number, d, direct, own, revealed))

    def advance(self, chance: Chance) -> None:
        """Fold guilds when too many are unfolded, and now and then replace an active guild by another one."""
        if len(self._unfolded) > self.options.unfolded_guilds:
            self._fold()
        if len(self._active) < len(self._pool) and chance.random() < _ROTATION:
            self._rotate(chance)

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
