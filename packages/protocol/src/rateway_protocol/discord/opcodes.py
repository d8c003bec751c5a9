"""The kinds of gateway messages (Discord documentation, "Opcodes and Status Codes": "Gateway Opcodes")."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["COMMANDS", "Opcode"]


class Opcode(IntEnum):
    """The opcodes that a bot sends or receives. Every other number is ignored when it is received."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE_UPDATE = 3
    VOICE_STATE_UPDATE = 4
    RESUME = 6
    RECONNECT = 7
    REQUEST_GUILD_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11
    REQUEST_SOUNDBOARD_SOUNDS = 31
    REQUEST_CHANNEL_INFO = 43


COMMANDS: frozenset[Opcode] = frozenset(
    {
        Opcode.PRESENCE_UPDATE,
        Opcode.VOICE_STATE_UPDATE,
        Opcode.REQUEST_GUILD_MEMBERS,
        Opcode.REQUEST_SOUNDBOARD_SOUNDS,
        Opcode.REQUEST_CHANNEL_INFO,
    }
)
"""The opcodes that a worker may send through the gateway. Heartbeat, identify and resume are the gateway's own."""
