"""A value that must never be shown, and that only ``reveal()`` gives away.

Tokens and broker addresses travel through the program in this wrapper, so that no ``repr``, f-string, log line or
traceback can carry one by accident. ``rateway.logs`` replaces the bare text as well, wherever it turns up.
"""

from __future__ import annotations

from typing import NoReturn, final


@final
class Secret:
    """A text whose value is read with :meth:`reveal` only; everything else shows ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself. Call it where the text is sent, nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        # A pickle is a file or a pipe without redaction: what crosses a process is revealed on purpose.
        raise TypeError("a Secret is not pickled; reveal() it where it is handed over")
