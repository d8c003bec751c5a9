"""The control socket of a running gateway: one line in, one JSON document out.

A unix socket ``status.sock`` in the state folder, which only its owner can open (folder 0700, socket 0600). A
request is one line: a word, then its arguments, separated by spaces. The answer is one line of JSON;
``{"error": ...}`` when the request was not understood. The format is documented in ``docs/operating.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
from rateway import logs

SOCKET_NAME = "status.sock"
# A request is a few words; whatever is longer is not one.
MAX_REQUEST_BYTES = 4096
# Answers grow with the shards: about 700 bytes each.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
# A client that connects and says nothing is dropped, and so is one that does not take its answer. How long the
# gateway may think is the client's business: a drain takes as long as confirms do.
PATIENCE_S = 10.0

# Requests under way. Each is a person's or a probe's.
MOST_CONNECTIONS = 64

log = logging.getLogger(__name__)

Handler = Callable[[list[str]], Awaitable[object]]


class ControlError(Exception):
    """The running gateway could not be asked; the message says what to do."""


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits a socket address (108 bytes on Linux), however deep the folder lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


@contextlib.asynccontextmanager
async def serve(state_dir: Path, handler: Handler) -> AsyncIterator[None]:
    """Answer requests with ``handler(words)`` until left. Raises OSError when the socket cannot be made."""
    path = state_dir / SOCKET_NAME
    listener = _socket()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # left by a gateway that was killed; the folder's lock says that none is alive
    mask = os.umask(0o177)
    try:
        with _short(path) as name:
            listener.bind(name)
    finally:
        os.umask(mask)

    asking = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asking
        asking += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                words = await _request(reader)
            if asking > MOST_CONNECTIONS:
                words = {"error": f"more than {MOST_CONNECTIONS} ask at once; ask again"}
            found = words if isinstance(words, dict) else await _handled(handler, words)
            # What a broker or Discord said is part of it, and they know the secrets.
            reply = logs.redact(msgspec.json.encode(found).decode()).encode()
            async with asyncio.timeout(PATIENCE_S):
                writer.write(reply + b"\n")
                await writer.drain()
        except (ConnectionError, TimeoutError):
            # What it has not taken by now is not kept for it.
            writer.transport.abort()
        finally:
            asking -= 1
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=listener, limit=MAX_REQUEST_BYTES)
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


async def _handled(handler: Handler, words: list[str]) -> object:
    """The handler's answer. What it raises is a mistake of the gateway's own, and costs this request only."""
    try:
        return await handler(words)
    except Exception as error:
        log.exception("the request %s failed", ascii(words[0][:40]), extra={"action": "control"})
        return {"error": f"the gateway failed on this request ({type(error).__name__}); its log says more"}


async def _request(reader: asyncio.StreamReader) -> list[str] | dict[str, str]:
    """Return the words of a request, or the answer to one that is none."""
    try:
        line = await reader.readline()
    except ValueError:
        return {"error": f"a request is one line of at most {MAX_REQUEST_BYTES} bytes"}
    words = line.decode("utf-8", "replace").split()
    return words or {"error": "an empty request; ask `status`"}


async def ask(state_dir: Path, *words: str, patience: float = PATIENCE_S) -> bytes:
    """Return the running gateway's answer within ``patience`` seconds, one JSON document as bytes.

    Raises ControlError when there is none.
    """
    path = state_dir / SOCKET_NAME
    sock = _socket()
    try:
        with _short(path) as name:
            await asyncio.get_running_loop().sock_connect(sock, name)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_ANSWER_BYTES)
    except OSError as error:
        sock.close()
        raise ControlError(
            f"no gateway answers at {path} ({error.strerror}): is one running with this STATE_DIR, "
            "and as this user?"
        ) from None
    try:
        async with asyncio.timeout(patience):
            writer.write(" ".join(words).encode() + b"\n")
            reply = await reader.readline()
    except (TimeoutError, ValueError, ConnectionError):
        raise ControlError(f"the gateway at {path} accepted the connection and did not answer") from None
    finally:
        writer.close()
    if not reply:
        raise ControlError(f"the gateway at {path} closed the connection without an answer")
    return reply
