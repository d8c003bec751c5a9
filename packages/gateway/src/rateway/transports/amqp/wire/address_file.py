"""The broker's address in a file, read again for each attempt to connect: a password may be replaced while we run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rateway.transports.amqp.wire.uri import AmqpAddress, parse

__all__ = ["AddressFile"]

log = logging.getLogger(__name__)

# An address is one line. Anything larger is another file.
_MOST_BYTES: Final = 64 * 1024


class AddressFile:
    """Implements uri.AddressSource. A file that cannot be used leaves the address as it was, with a line in the log."""

    def __init__(self, path: Path, first: str, on_secret: Callable[[str], None]) -> None:
        """*first* is what was read at the start; *on_secret* is called with each new text before it is used."""
        self._path = path
        self._text = first
        self._address = parse(first)
        self._on_secret = on_secret
        self._complaint = ""

    def current(self) -> AmqpAddress:
        """Read the file and return its address; see :class:`rateway.transports.amqp.wire.uri.AddressSource`."""
        try:
            text = self._read()
            if text != self._text:
                self._on_secret(text)
                self._address = parse(text)
                self._text = text
                log.info(
                    "%s has another address of the broker: it is used from now on",
                    self._path,
                    extra={"action": "address"},
                )
            self._complaint = ""
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            if why != self._complaint:
                self._complaint = why
                log.warning(
                    "%s cannot be used (%s): the broker's address stays as it was; correct the file",
                    self._path,
                    why,
                    extra={"action": "address"},
                )
        return self._address

    def _read(self) -> str:
        with self._path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("it is larger than any address")
        try:
            lines = [line.strip() for line in data.decode().splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
        if len(lines) != 1:
            raise ValueError(f"it has {len(lines) or 'no'} lines of text, not one")
        return lines[0]
