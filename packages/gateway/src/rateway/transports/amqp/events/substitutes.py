"""What is published in place of an event that the broker does not take (``docs/contract.md``, *Messages of the
gateway's own*).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from rateway.delivery.message import Publish
from rateway.transports.amqp.wire import frames
from rateway_protocol.contract import messages
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["Substitutes", "guild_of"]

log = logging.getLogger(__name__)

# A name that is no routing key is shown as far as a log line has room for it.
_SHOWN: Final = 100
# Different reasons of unreadable dispatches that are logged; there are some ten, and those of failures of our own.
_MOST_SAID: Final = 50


class _Guild(msgspec.Struct):
    guild_id: str | None = None
    id: str | None = None


_decode_guild = msgspec.json.Decoder(_Guild).decode


def guild_of(name: str, body: bytes) -> str | None:
    """Return the guild that an event is about, from its ``d``; None where it names none."""
    try:
        found = _decode_guild(body)
    except FAILURES:
        return None
    return found.guild_id or (found.id if name.startswith("GUILD_") else None)


class Substitutes:
    """Make substitutes, and report each in the log and to the observer.

    ``body_max`` is the broker's limit once it is known, in bytes.
    """

    def __init__(
        self,
        *,
        cluster: int,
        own: Callable[[str, bytes, str | None, Mapping[str, str | int | bool] | None], Publish],
        on_oversize: Callable[[str, int | None, int | None, int, int | None], None],
        on_refused: Callable[[str, int | None, int | None], None],
    ) -> None:
        self.body_max: int | None = None
        self._cluster = cluster
        self._own = own
        self._on_oversize = on_oversize
        self._on_refused = on_refused
        self._said: set[str] = set()

    def fitting(self, publish: Publish) -> Publish:
        """Return the message itself, or RATEWAY_OVERSIZE where the broker takes none of that size."""
        if self.body_max is None or len(publish.body) <= self.body_max:
            return publish
        shard_id, seq = frames.event_of(publish.properties)
        identity = frames.message_id_of(publish.properties)
        return self.oversize(publish.key.decode("utf-8", "replace"), identity, shard_id, seq, publish.body)

    def oversize(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, body: bytes
    ) -> Publish:
        """Return RATEWAY_OVERSIZE for an event."""
        size = len(body)
        self._on_oversize(name, shard_id, seq, size, self.body_max)
        log.error(
            "the broker takes no message of %s bytes (limit: %s): %s is left out, RATEWAY_OVERSIZE tells the worker",
            f"{size:,}",
            "unknown" if self.body_max is None else f"{self.body_max:,}",
            name,
            extra={"cluster": self._cluster, "shard": shard_id, "action": "oversize"},
        )
        report = messages.Oversize(
            event=name, shard=shard_id, seq=seq, size=size, limit=self.body_max, guild_id=guild_of(name, body)
        )
        return self._own(report.key, messages.encode(report), _report_id("oversize", message_id), None)

    def unreadable(
        self, name: str, message_id: str | None, shard_id: int, seq: int | None, why: str
    ) -> Publish:
        """Return RATEWAY_UNREADABLE for a dispatch that cannot be forwarded. Each reason is logged once."""
        shown = name[:_SHOWN].encode("utf-8", "replace").decode()
        if why not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(why)
            log.error(
                "a dispatch cannot be forwarded: %s (%s, sequence %s); it is passed over, and so is each like it, "
                "RATEWAY_UNREADABLE tells the worker",
                why,
                ascii(shown),
                seq,
                extra={"cluster": self._cluster, "shard": shard_id, "action": "unreadable"},
            )
        report = messages.Unreadable(shard=shard_id, seq=seq, event=shown or None, reason=why)
        return self._own(report.key, messages.encode(report), _report_id("unreadable", message_id), None)

    def given_up(self, publish: Publish) -> Publish:
        """Return RATEWAY_REFUSED for an event that the broker has refused (basic.nack) for too long."""
        shard_id, seq = frames.event_of(publish.properties)
        name, identity = publish.key.decode("utf-8", "replace"), frames.message_id_of(publish.properties)
        return self._refused(name, identity, shard_id, seq, "the broker has refused it for too long")

    def _refused(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, why: str
    ) -> Publish:
        self._on_refused(name, shard_id, seq)
        log.error(
            "%s is given up: %s; RATEWAY_REFUSED tells the worker",
            name,
            why,
            extra={"cluster": self._cluster, "shard": shard_id, "action": "given_up"},
        )
        report = messages.Refused(event=name, shard=shard_id, seq=seq, message_id=message_id)
        return self._own(report.key, messages.encode(report), _report_id("refused", message_id), None)


def _report_id(prefix: str, message_id: str | None) -> str | None:
    return None if message_id is None else f"{prefix}:{message_id}"
