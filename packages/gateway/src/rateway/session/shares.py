"""Divide a limit of commands among their kinds, so that a flood of one kind leaves room for the others."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from rateway_protocol.discord.opcodes import Opcode

__all__ = ["Kind", "Shares", "kind_of"]


class Kind(Enum):
    """The kind of a command. Each kind has a share of every limit."""

    VOICE = "voice"
    PRESENCE = "presence"
    MEMBERS = "members"
    OTHERS = "others"


# The part of a limit that is kept for a kind while it does not use it. Discord's window is a minute long: what one kind
# had taken of the others' parts could not be given back when their commands come. One kind alone gets what the others
# do not keep: of 115 commands a minute voice states and requests for members 94, presences and the rest 88. Presences
# are replaced by newer ones, soundboards and channel infos are rare.
PARTS: Mapping[Kind, float] = {
    Kind.VOICE: 0.1,
    Kind.PRESENCE: 0.05,
    Kind.MEMBERS: 0.1,
    Kind.OTHERS: 0.05,
}
_KINDS: Mapping[int, Kind] = {
    Opcode.VOICE_STATE_UPDATE: Kind.VOICE,
    Opcode.PRESENCE_UPDATE: Kind.PRESENCE,
    Opcode.REQUEST_GUILD_MEMBERS: Kind.MEMBERS,
}


def kind_of(op: int) -> Kind:
    """Return the kind of a command with that opcode."""
    return _KINDS.get(op, Kind.OTHERS)


class Shares:
    """One limit, with the part of it that is kept for each kind. The caller counts what is used."""

    __slots__ = ("kept", "limit")

    def __init__(self, limit: int, least: int = 0) -> None:
        """Keep at least *least* for each kind, however small the limit."""
        self.limit = limit
        self.kept = {kind: max(least, int(limit * part)) for kind, part in PARTS.items()}

    def has_room(self, kind: Kind, used: Mapping[Kind, int]) -> bool:
        """Return whether one more of *kind* fits, beside what is used and what is kept for the other kinds."""
        total = used[kind] + 1
        for other, kept in self.kept.items():
            if other is not kind:
                total += max(used[other], kept)
        return total <= self.limit
