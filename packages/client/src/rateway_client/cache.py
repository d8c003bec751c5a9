"""Queries to the gateway's cache: each type (docs/contract.md, *Queries*) as an awaitable call.

Answers are Discord's own JSON, ids as strings; None is what is not known. Arguments are ids, as integers or decimal
strings. Lists are asynchronous iterators that fetch page after page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from rateway_client.errors import QueryError

__all__ = ["Cache", "Id", "Json", "error_in", "question"]

Json: TypeAlias = dict[str, Any]
Id: TypeAlias = int | str
Fields: TypeAlias = Sequence[str] | None

# A page's size: the most that one query takes is 1,000; a smaller one lets other workers' queries in between.
_PAGE: Final = 250
# By what a list is ordered, which is what `after` means: by `id` unless said here. Two names: an object in an object.
_ORDER: Final[Mapping[str, tuple[str, ...]]] = {
    "GuildMembers": ("user", "id"),
    "GuildPresences": ("user_id",),
    "GuildVoiceStates": ("user_id",),
    "GuildSoundboardSounds": ("sound_id",),
}


class _Ask(Protocol):
    async def __call__(
        self,
        kind: str,
        *arguments: Id,
        fields: Fields = None,
        limit: int | None = None,
        after: Id | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any: ...


class Cache:
    """Every method raises QueryError (``loading``, ``elsewhere``, ``cache_off`` …) and NoAnswer."""

    def __init__(self, ask: _Ask) -> None:
        self._ask = ask

    # One entity.

    async def current_user(self, *, fields: Fields = None) -> Json | None:
        """Return the bot's own user."""
        return await self._one("CurrentUser", fields=fields)

    async def guild(self, guild_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a guild without its lists; ``fields`` may name them (``roles``, ``channels`` …)."""
        return await self._one("Guild", guild_id, fields=fields)

    async def guild_channel(self, channel_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a channel or thread of a guild."""
        return await self._one("GuildChannel", channel_id, fields=fields)

    async def private_channel(self, channel_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a direct channel."""
        return await self._one("PrivateChannel", channel_id, fields=fields)

    async def group(self, group_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a group of users: always None for bots."""
        return await self._one("Group", group_id, fields=fields)

    async def emoji(self, emoji_id: Id, *, fields: Fields = None) -> Json | None:
        """Return an emoji of a guild."""
        return await self._one("Emoji", emoji_id, fields=fields)

    async def role(self, role_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a role."""
        return await self._one("Role", role_id, fields=fields)

    async def user(self, user_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a user."""
        return await self._one("User", user_id, fields=fields)

    async def member(self, guild_id: Id, user_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a member with its ``user``."""
        return await self._one("Member", guild_id, user_id, fields=fields)

    async def message(self, channel_id: Id, message_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a message, when messages are kept (``MESSAGE_CACHE_SIZE``)."""
        return await self._one("Message", channel_id, message_id, fields=fields)

    async def presence(self, guild_id: Id, user_id: Id, *, fields: Fields = None) -> Json | None:
        """Return a user's presence in a guild."""
        return await self._one("Presence", guild_id, user_id, fields=fields)

    async def voice_state(self, user_id: Id, place: Id, *, fields: Fields = None) -> Json | None:
        """Return a user's voice state; *place* is the channel or the guild."""
        return await self._one("VoiceState", user_id, place, fields=fields)

    async def voice_channel_states(self, channel_id: Id, *, fields: Fields = None) -> list[Json] | None:
        """Return the voice states of a channel, each with its ``member``."""
        found: list[Json] | None = await self._ask("VoiceChannelStates", channel_id, fields=fields)
        return found

    # Worked out.

    async def member_permissions(self, guild_id: Id, user_id: Id, channel_id: Id | None = None) -> int | None:
        """Return a member's permissions in a guild, or in one of its channels, as Discord's bits."""
        place = () if channel_id is None else (channel_id,)
        found = await self._one("MemberPermissions", guild_id, user_id, *place)
        return None if found is None else int(found["permissions"])

    async def where_is(self, guild_id: Id) -> Json | None:
        """Return ``cluster``, ``shard`` and ``shard_count`` of a guild, of any that there may be."""
        return await self._one("WhereIs", guild_id)

    async def clusters(self) -> Json:
        """Return ``shard_count`` and ``clusters``: the exchange, shards, guilds and owner of each."""
        return await self._one("Clusters") or {}

    # With the shard's position.

    async def shard_snapshot(self, shard_id: int) -> Json:
        """Return what READY of a shard would hold now: ``user``, ``application``, ``guilds``, with the shard's
        position.
        """
        return await self._one("ShardSnapshot", shard_id) or {}

    async def guild_snapshot(
        self, guild_id: Id, *, intents: int | None = None, large_threshold: int | None = None
    ) -> Json | None:
        """Return a guild as GUILD_CREATE would send it now to a bot of these intents, with its shard's position."""
        options = {"intents": intents, "large_threshold": large_threshold}
        return await self._with("GuildSnapshot", guild_id, options)

    async def members_matching(
        self,
        guild_id: Id,
        *,
        query: str | None = None,
        limit: int | None = None,
        user_ids: Sequence[Id] | None = None,
        presences: bool = False,
    ) -> Json | None:
        """Return members as Request Guild Members finds them, with the shard's position: one of ``query`` and
        ``user_ids``.

        Raises QueryError ``incomplete`` where the cache may not know them all; ``Worker.request_members`` asks Discord.
        """
        ids = None if user_ids is None else [str(user_id) for user_id in user_ids]
        options = {"query": query, "limit": limit, "user_ids": ids, "presences": presences or None}
        return await self._with("MembersMatching", guild_id, options)

    async def stats(self) -> Json:
        """Return how many entities of each kind are kept, in all and by cluster."""
        return await self._one("Stats") or {}

    # Lists.

    def guilds(self, *, fields: Fields = None, after: Id | None = None) -> AsyncIterator[Json]:
        """Yield all guilds, of every cluster."""
        return self.pages("Guilds", fields=fields, after=after)

    def mutual_guilds(
        self, user_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield the guilds in which a user is known."""
        return self.pages("MutualGuilds", user_id, fields=fields, after=after)

    def guild_channels(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's channels."""
        return self.pages("GuildChannels", guild_id, fields=fields, after=after)

    def guild_threads(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's active threads."""
        return self.pages("GuildThreads", guild_id, fields=fields, after=after)

    def guild_roles(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's roles."""
        return self.pages("GuildRoles", guild_id, fields=fields, after=after)

    def guild_emojis(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's emojis."""
        return self.pages("GuildEmojis", guild_id, fields=fields, after=after)

    def guild_stickers(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's stickers."""
        return self.pages("GuildStickers", guild_id, fields=fields, after=after)

    def guild_members(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's members, as far as they are known: a large guild's come by ``Worker.request_members``."""
        return self.pages("GuildMembers", guild_id, fields=fields, after=after)

    def guild_voice_states(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's voice states."""
        return self.pages("GuildVoiceStates", guild_id, fields=fields, after=after)

    def guild_presences(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's presences."""
        return self.pages("GuildPresences", guild_id, fields=fields, after=after)

    def guild_scheduled_events(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's scheduled events."""
        return self.pages("GuildScheduledEvents", guild_id, fields=fields, after=after)

    def guild_stage_instances(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's stage instances."""
        return self.pages("GuildStageInstances", guild_id, fields=fields, after=after)

    def guild_soundboard_sounds(
        self, guild_id: Id, *, fields: Fields = None, after: Id | None = None
    ) -> AsyncIterator[Json]:
        """Yield a guild's soundboard sounds."""
        return self.pages("GuildSoundboardSounds", guild_id, fields=fields, after=after)

    async def pages(
        self, kind: str, *arguments: Id, fields: Fields = None, after: Id | None = None, page: int = _PAGE
    ) -> AsyncIterator[Json]:
        """Yield every item of a list by its type's name, *page* a query (1 to 1,000); none when the guild is not known.

        ``fields`` has the field that orders the list added: it says where the next page begins.
        """
        order = _ORDER.get(kind, ("id",))
        wanted = fields if fields is None or order[0] in fields else [*fields, order[0]]
        while True:
            found: list[Json] | None = await self._ask(
                kind, *arguments, fields=wanted, limit=page, after=after
            )
            for item in found or ():
                yield item
            if found is None or len(found) < page:
                return
            last: Any = found[-1]
            for name in order:
                last = last[name]
            after = str(last)

    async def _one(self, kind: str, *arguments: Id, fields: Fields = None) -> Json | None:
        found: Json | None = await self._ask(kind, *arguments, fields=fields)
        return found

    async def _with(self, kind: str, argument: Id, options: Mapping[str, Any]) -> Json | None:
        found: Json | None = await self._ask(kind, argument, options=options)
        return found


def question(
    kind: str,
    arguments: Iterable[Id] = (),
    *,
    fields: Fields = None,
    limit: int | None = None,
    after: Id | None = None,
    options: Mapping[str, Any] | None = None,
) -> Json:
    """Return one query as the contract has it, for ``Worker.queries``. ``options``: what else its type takes."""
    found: Json = {"type": kind, "arguments": [str(argument) for argument in arguments]}
    for name, value in (
        ("fields", fields),
        ("limit", limit),
        ("after", None if after is None else str(after)),
        *(options or {}).items(),
    ):
        if value is not None:
            found[name] = value
    return found


def error_in(answer: object) -> QueryError | None:
    """Return the error that stands in the place of a batch's answer, or None."""
    error = answer.get("error") if isinstance(answer, dict) and len(answer) == 1 else None
    if not isinstance(error, dict) or "code" not in error:
        return None
    return QueryError(str(error["code"]), str(error.get("message", "")))
