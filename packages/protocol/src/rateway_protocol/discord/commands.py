"""Write the payloads that a client sends to the gateway. (``command_forms`` checks what Discord accepts.)

Discord documentation, "Gateway Events": "Send Events". Payloads are JSON text in UTF-8 and never compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from rateway_protocol.discord.opcodes import Opcode

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "bare_token",
    "encode",
    "heartbeat",
    "identify",
    "presence",
    "resume",
]

# "Clients may send at most 4096 bytes"; more is closed with 4002.
MAX_PAYLOAD_BYTES = 4096
encode = msgspec.json.encode
"""JSON as compact UTF-8 bytes."""


def bare_token(token: str) -> str:
    """Return the token without the ``Bot `` that only HTTP wants: a resume with it is refused with 4006."""
    token = token.strip()
    return token[4:].strip() if token[:4].lower() == "bot " else token


def identify(
    *,
    token: str,
    intents: int,
    shard_id: int,
    shard_count: int,
    large_threshold: int = 50,
    presence: Mapping[str, Any] | msgspec.Raw | None = None,
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Return an identify (op 2). ``shard`` is always sent, also as ``[0, 1]``: READY then echoes it.

    ``compress`` is left out: the connection's own compression makes it void.
    """
    d: dict[str, Any] = {
        "token": bare_token(token),
        "intents": intents,
        "properties": dict(properties or {"os": "linux", "browser": "rateway", "device": "rateway"}),
        "large_threshold": large_threshold,
        "shard": (shard_id, shard_count),
    }
    if presence is not None:
        d["presence"] = presence
    return encode({"op": Opcode.IDENTIFY.value, "d": d})


def resume(*, token: str, session_id: str, seq: int) -> bytes:
    """Return a resume (op 6); *seq* is the last sequence received in the session."""
    d = {"token": bare_token(token), "session_id": session_id, "seq": seq}
    return encode({"op": Opcode.RESUME.value, "d": d})


def heartbeat(seq: int | None) -> bytes:
    """Return a heartbeat (op 1)."""
    return b'{"op":1,"d":null}' if seq is None else b'{"op":1,"d":%d}' % seq


def presence(
    *,
    status: str = "online",
    activities: list[dict[str, Any]] | None = None,
    since: int | None = None,
    afk: bool = False,
) -> bytes:
    """Return a presence update (op 3); *since* is milliseconds of Unix time, for ``idle``."""
    d = {"since": since, "activities": activities or [], "status": status, "afk": afk}
    return encode({"op": Opcode.PRESENCE_UPDATE.value, "d": d})
