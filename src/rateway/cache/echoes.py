"""Does an event only repeat what is kept? Fingerprints of the very bytes that said it before.

Messages, typing, reactions and voice states carry their member and user again and again, mostly in the words of the
last time. A table of 64-bit fingerprints recognises such words ahead of any decoding, for some 100,000 active people in
8 MB. It forgets now and then (then the words are compared with what is kept once more), and is never wrong: whatever
changes a user or a member forgets all words about that user.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

__all__ = ["Echoes"]

# Fingerprints that a user's words have room for, shared with few others: two cache lines. With eight
# places instead a tenth more of what 100,000 people say is forgotten too early.
_WAYS = 16
_BLANK = array("q", bytes(8 * _WAYS))

# The table grows fourfold from 32 KiB up to 8 MiB as it fills: a million marks, of which a user has three to six.
_LEAST = 1 << 12
_MOST = 1 << 20

# A snowflake's time begins at bit 22; the bits that choose among a user's ways lie below it.
_SHIFT = 18

# So many ways for each time that something was learned: what is learned together has up to three marks.
_CROWDED = 5


class Echoes:
    """One cluster's memory of words about users and members.

    Words are told by a mark: ``hash((place, user_id, words))``, with the guild's id as the place of a member's words
    and 0 as that of the user's own. Python's hash of bytes is keyed: nobody outside can make two texts share one.
    """

    __slots__ = ("_former", "_learned", "_mask", "_prints", "any")

    _former: array[int] | None
    _prints: array[int]
    any: bool
    """Whether any words are known at all."""

    def __init__(self) -> None:
        self.forget_all()

    def known(self, user_id: int, mark: int) -> bool:
        """Whether these words about a user say what is kept. False proves nothing."""
        at = user_id >> _SHIFT & self._mask
        prints = self._prints
        if prints[at | mark & 15] == mark or prints[at | mark >> 4 & 15] == mark:
            return True
        former = self._former
        if former is not None:
            at &= len(former) - _WAYS
            if former[at | mark & 15] == mark or former[at | mark >> 4 & 15] == mark:
                self.learn(user_id, (mark,))
                return True
        return False

    def learn(self, user_id: int, marks: Iterable[int]) -> None:
        """These words say what is kept now."""
        at = user_id >> _SHIFT & self._mask
        prints = self._prints
        for mark in marks:
            first, second = at | mark & 15, at | mark >> 4 & 15
            one, other = prints[first], prints[second]
            if one == mark or other == mark:
                continue
            # In a free place, else in either of the two.
            prints[second if one and (not other or mark & 256) else first] = mark
        self.any = True
        self._learned += 1
        if self._learned > len(prints) // _CROWDED:
            self._grow()

    def _grow(self) -> None:
        """A larger table, empty; what the smaller one knows moves when it is heard again."""
        self._learned = 0
        self._former = None
        if len(self._prints) < _MOST:
            self._former, self._prints = self._prints, array("q", bytes(8 * 4 * len(self._prints)))
            self._mask = len(self._prints) - _WAYS

    def forget(self, user_id: int) -> None:
        """Something about this user, or one of its members, changed."""
        at = user_id >> _SHIFT & self._mask
        self._prints[at : at + _WAYS] = _BLANK
        former = self._former
        if former is not None:
            at &= len(former) - _WAYS
            former[at : at + _WAYS] = _BLANK

    def forget_all(self) -> None:
        self.any = False
        self._prints = array("q", bytes(8 * _LEAST))
        self._former = None
        self._mask = _LEAST - _WAYS
        self._learned = 0
