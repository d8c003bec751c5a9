"""Session ids of the proxy: all that a RESUME needs, signed, so that proxies keep no state.

No library limits the length of a session id or looks into it. An id is signed with a key that is derived from the bot's
token: only proxies of the same bot can read and make it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec

__all__ = ["MOST_SESSION_ID", "Session", "SessionIds"]

# Characters of a session id that is looked at; one of rateway's own has some 170.
MOST_SESSION_ID: Final = 1000
SIGNATURE_BYTES: Final = 16


class Session(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One session of a bot."""

    number: int
    """A random one: several connections may begin at the same place."""
    log: str
    """The name of its event log, which no other log ever has; empty where its shard lies in several clusters: the proxy
    that it began at knows it by its number."""
    base: int
    """The offset of the last entry before the first that the session may see; -1 for a log that had none."""
    snapshots: int
    """Dispatches between READY (``s`` 1) and the first entry: one for each guild of READY."""
    shard: int
    count: int
    total: int
    """The gateway's own number of shards."""
    intents: int
    large_threshold: int
    bot_id: int
    library: str = ""
    """The name of the bot's library, which a RESUME does not tell."""

    def seq_of(self, offset: int) -> int:
        """Return the ``s`` of the entry at an offset above ``base``."""
        return offset - self.base + self.snapshots + 1

    def offset_of(self, seq: int) -> int | None:
        """The offset up to which a bot that has ``seq`` has seen the log; None where it lacks snapshots, or may have
        events that only the snapshots' reader could tell from what is in them."""
        return self.base + seq - self.snapshots - 1 if seq > max(1, self.snapshots) else None


class SessionIds:
    """Issue and read the session ids of one bot. *key* is a secret that all its proxies have."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._decode = msgspec.msgpack.Decoder(Session).decode

    def issue(self, session: Session) -> str:
        """Return the id of a session: letters, digits, ``-`` and ``_``."""
        fields = msgspec.msgpack.encode(session)
        return base64.urlsafe_b64encode(self._signature(fields) + fields).rstrip(b"=").decode()

    def read(self, text: str) -> Session | None:
        """Return the session of an id; None for one that was not issued for this bot."""
        if len(text) > MOST_SESSION_ID:
            return None
        try:
            signed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, fields = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(fields)):
            return None
        try:
            return self._decode(fields)
        except (msgspec.MsgspecError, ValueError):
            # Signed by a proxy of another version.
            return None

    def _signature(self, fields: bytes) -> bytes:
        return hmac.digest(self._key, fields, "sha256")[:SIGNATURE_BYTES]
