"""Take the message out of a frame that is sure to hold a whole binary one.

A frame's type is an enum member that picows makes whenever it is asked for it, which takes longer than copying the
frame and reading it. Hence the type is found in what the frame holds, as far as that leaves no doubt:

- A control frame is no longer than 125 bytes (RFC 6455, section 5.5), and what does not begin and end like JSON is no
  text of Discord's. (A long continuation of nothing is taken for data by that, and the stream fails a step later.)
- A shorter one is a message if it is exactly one compressed block of zstd that is not empty, or ends as a message of
  zlib-stream does and does not begin with a zero. Text is neither, and neither is what a ping or a close frame carries:
  no numbers of 64 bits below 2 ** 24, in either order of their bytes, and of others and of random bytes one in 2 ** 24.
  A host breaks its own stream by such a one, and the session is resumed.

Every other frame is the listener's.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from rateway.native.inflate import SUFFIX

__all__ = ["Frame", "MessageReader", "is_message"]

# RFC 6455, section 5.5.
CONTROL_BYTES: Final = 125
# Hardly a message of Discord's is shorter, but a counter or a random number in a ping may be.
SHORTEST: Final = 16
# RFC 8878, section 3.1.1.2: three bytes, little-endian, from the lowest bit on: 1 bit whether it is the frame's last
# block (Discord's frame does not end), 2 bits of type (2 is compressed), and the size of what follows.
BLOCK_HEADER: Final = 3
BLOCK_COMPRESSED: Final = 4


class Frame(Protocol):
    """A frame as picows gives it; its payload is there during the call only."""

    @property
    def fin(self) -> int:
        """Whether it is the last of its message."""

    def get_payload_as_bytes(self) -> bytes:
        """A copy of its payload."""


def _table(members: bytes) -> bytes:
    return bytes(byte in members for byte in range(256))


# By byte: 1 where a JSON text may begin, or end, with it.
JSON_BEGINS: Final = _table(b'{["-0123456789tfn \t\r\n\xef')
JSON_ENDS: Final = _table(b'}]"0123456789el \t\r\n')


def is_message(data: bytes) -> bool:
    """Whether the payload of a whole frame is a binary message for sure."""
    size = len(data)
    if size > CONTROL_BYTES:
        return not (JSON_BEGINS[data[0]] and JSON_ENDS[data[-1]])
    if size < SHORTEST:
        return False
    header = data[0] | data[1] << 8 | data[2] << 16
    if header == (size - BLOCK_HEADER) << 3 | BLOCK_COMPRESSED:
        # No literals and no sequences (RFC 8878, sections 3.1.1.3.1.1 and 3.1.1.3.2.1): nothing is compressed to that.
        return bool(data[3] or data[4])
    return bool(data[0]) and data.endswith(SUFFIX)


class MessageReader:
    """Pass one connection's usual frames to *message*, and all others, whole, to *other*."""

    __slots__ = ("_failed", "_message", "_other", "open")

    def __init__(
        self,
        message: Callable[[bytes, bool], None],
        failed: Callable[[Exception], None],
        other: Callable[[Any, Any], None],
    ) -> None:
        self.open = True
        """Whether a frame may be a message: none is in parts, and the connection is not given up."""
        self._message = message
        self._failed = failed
        self._other = other

    def read(self, transport: object, frame: Frame) -> None:
        """Take a frame of *transport*; what *message* raises is told to *failed*."""
        if self.open:
            # A copy of some hundred bytes costs half of what a view of them does.
            data = frame.get_payload_as_bytes()
            if is_message(data) and frame.fin:
                try:
                    self._message(data, True)
                except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
                    self._failed(error)
                return
        self._other(transport, frame)
