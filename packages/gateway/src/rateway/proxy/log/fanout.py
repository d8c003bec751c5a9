"""Bring the entries of a log to the sessions that read it: each once, to whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from rateway.delivery.proxy_port import LogEntry
from rateway.proxy.log.dispatch import Kind, kind_of
from rateway.proxy.log.order import Order
from rateway.proxy.log.stream import Feed
from rateway_protocol.contract.messages import Gap, GuildLeft

__all__ = ["Answers", "Fanout", "Visible"]

Visible = Callable[[str, bytes, int, int], bytes | None]
"""Return an event's ``d`` as a bot of these intents gets it, None where it gets none: name, ``d``, intents, bot's
id."""


class Answers(Protocol):
    """The sessions that wait for answers to commands."""

    def of(self, entry: LogEntry, feeds: Sequence[Feed]) -> Iterable[tuple[Feed, bytes]]:
        """Return the sessions that an answer goes to, and its ``d`` for each."""


_decode_gap = msgspec.json.Decoder(Gap).decode
_decode_left = msgspec.json.Decoder(GuildLeft).decode


class _Group:
    """Feeds with equal intents: their common view of an event is computed once."""

    __slots__ = ("feeds", "intents", "own_id")

    def __init__(self, intents: int, own_id: int, feeds: tuple[Feed, ...]) -> None:
        self.intents = intents
        self.own_id = own_id
        self.feeds = feeds


class Fanout:
    """Bring entries to feeds. Feeds may come and go while it does."""

    __slots__ = ("_answers", "_groups", "_visible", "feeds", "order")

    def __init__(self, visible: Visible, answers: Answers) -> None:
        self.order = Order()
        self.feeds: tuple[Feed, ...] = ()
        self._groups: dict[int, tuple[_Group, ...]] = {}
        self._visible = visible
        self._answers = answers

    def add(self, feed: Feed) -> None:
        self.feeds = (*self.feeds, feed)
        self._rebuild()

    def remove(self, feed: Feed) -> bool:
        if feed not in self.feeds:
            return False
        self.feeds = tuple(each for each in self.feeds if each is not feed)
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        by_shard: dict[int, dict[tuple[int, int], list[Feed]]] = {}
        for feed in self.feeds:
            key = feed.stream.intents, feed.stream.own_id
            for shard_id in feed.shards:
                by_shard.setdefault(shard_id, {}).setdefault(key, []).append(feed)
        self._groups = {
            shard_id: tuple(_Group(*key, tuple(feeds)) for key, feeds in groups.items())
            for shard_id, groups in by_shard.items()
        }

    def bring(self, entry: LogEntry) -> bool:
        """Bring the next entry of the log to its feeds; false when it stands in the log a second time."""
        if not self.order.is_new(entry):
            return False
        kind = kind_of(entry.name)
        if kind is Kind.EVENT:
            for group in self._groups.get(entry.shard_id, ()):
                d = self._visible(entry.name, entry.body, group.intents, group.own_id)
                for feed in group.feeds:
                    # A tail that has joined a feed by the newest entry of the log may still read older ones.
                    if entry.offset > feed.at:
                        feed.on_entry(entry, d, self.order)
        elif kind is not Kind.HIDDEN:
            self._bring_seldom(entry, kind, tuple(feed for feed in self.feeds if entry.offset > feed.at))
        return True

    def bring_to(self, entry: LogEntry, feed: Feed) -> None:
        """Bring an entry that is known to be new to one feed."""
        kind = kind_of(entry.name)
        if kind is Kind.EVENT:
            if entry.shard_id in feed.shards:
                d = self._visible(entry.name, entry.body, feed.stream.intents, feed.stream.own_id)
                feed.on_entry(entry, d, self.order)
        elif kind is not Kind.HIDDEN:
            self._bring_seldom(entry, kind, (feed,))

    def _bring_seldom(self, entry: LogEntry, kind: Kind, feeds: tuple[Feed, ...]) -> None:
        if kind is Kind.ANSWER:
            concerned = [feed for feed in feeds if entry.shard_id in feed.shards]
            for feed, d in self._answers.of(entry, concerned):
                feed.on_answer(entry, d)
            return
        try:
            if kind is Kind.GAP:
                gap = _decode_gap(entry.body)
                for feed in feeds:
                    feed.on_gap(entry, gap, self.order)
            else:
                left = _decode_left(entry.body)
                for feed in feeds:
                    feed.on_guild_left(entry, left.shard, int(left.guild_id))
        except (msgspec.MsgspecError, ValueError):
            # Not the gateway's own: any client may publish to the exchange.
            return
