"""Read one value, from a variable's text or from a typed value of the file.

Each reader takes either and returns the value, or raises :class:`Wrong` with what is wrong and what to write instead.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rateway.config.presence import PresenceError, PresenceTemplate, parse_presence
from rateway.fleet.layout import LayoutError, parse_clusters
from rateway.fleet.membership import MOST_NAME, is_fleet_name
from rateway.secret import Secret
from rateway.transports.amqp.wire import uri
from rateway_protocol.discord import commands, intents
from rateway_protocol.discord.control import is_gateway_url
from rateway_protocol.discord.events import DOCUMENTED
from rateway_protocol.discord.hosts import is_host_name

__all__ = ["Reader", "Wrong", "nearest"]

Reader = Callable[[object], object]

SIZES = {
    "": 1, "b": 1,
    "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30, "t": 2**40, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
OFF = ("", "off", "none", "never")
# A guess at the port has some hundred tries a second: of 16 random letters it finds none in a lifetime.
LEAST_BEARER = 16
# How alike two names are before one is taken for a slip of the other.
ALIKE = 0.75


class Wrong(ValueError):
    """A value that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, wrong: str, instead: str = "") -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.instead = instead


class ManyWrong(ValueError):
    """Several mistakes in one value, each with its own advice."""

    def __init__(self, mistakes: list[Wrong]) -> None:
        super().__init__("; ".join(mistake.wrong for mistake in mistakes))
        self.mistakes = mistakes


def nearest(name: str, known: Iterable[str], alike: float = ALIKE) -> str | None:
    """Return the known name that *name* was most likely meant to be."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=alike)
    return close[0] if close else None


def shown(value: object) -> str:
    """Return a value as an error shows it: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def integer(least: int, most: int | None = None) -> Reader:
    """Return a whole number between two bounds."""
    span = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def read(value: object) -> int:
        number = value
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9_]{1,20}", value.strip(), re.ASCII):
            number = int(value.strip().replace("_", "") or "0")
        if isinstance(number, bool) or not isinstance(number, int):
            raise Wrong(f"{shown(value)} is not a whole number", f"write {span}")
        if number < least or (most is not None and number > most):
            raise Wrong(f"{number} is out of range", f"write {span}")
        return number

    return read


def optional(reader: Reader) -> Reader:
    """Return the same, or ``off``."""

    def read(value: object) -> object:
        if isinstance(value, str) and value.strip().lower() in OFF:
            return None
        return reader(value)

    return read


def boolean(value: object) -> bool:
    """true or false, in the words that people use for them."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise Wrong(f"{shown(value)} is neither true nor false", "write true or false")


def choice(*words: str) -> Reader:
    """Return one of some words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        close = nearest(value.lower(), words, 0.5) if isinstance(value, str) else None
        hint = f"did you mean {close}? " if close else ""
        raise Wrong(f"{shown(value)} is not known", f"{hint}write one of {', '.join(words)}")

    return read


def size(least: int, *, zero: bool = False) -> Reader:
    """Bytes, as a number or with a unit: ``256MiB``."""
    example = f"write a size such as 256MiB or 1GiB, at least {least} bytes" + (
        ", or 0 for off" if zero else ""
    )

    def read(value: object) -> int:
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str):
            match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]{0,3})", value.strip().lower(), re.ASCII)
            if match is not None and match[2] in SIZES:
                number = int(float(match[1]) * SIZES[match[2]])
        if number is None:
            raise Wrong(f"{shown(value)} is not a size", example)
        if number < least and not (zero and number == 0):
            raise Wrong(f"{number} bytes are too few", example)
        return number

    return read


def duration(least: float, most: float | None = None) -> Reader:
    """Seconds, as a number or with a unit: ``180s``, ``5m``, ``1h``, ``2d``, ``250ms``."""
    span = f", at least {least:g} s" + (f" and at most {most:g} s" if most is not None else "")

    def read(value: object) -> float:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        if isinstance(value, str):
            match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]{0,3})", value.strip().lower(), re.ASCII)
            if match is not None and match[2] in SECONDS:
                number = float(match[1]) * SECONDS[match[2]]
        if number is None or not math.isfinite(number):
            raise Wrong(f"{shown(value)} is not a time", f"write one such as 180s, 5m or 1h{span}")
        if number < least or (most is not None and number > most):
            raise Wrong(f"{number:g} s is out of range", f"write a time{span}")
        return number

    return read


def path(value: object) -> Path:
    """Return a folder or file; ``~`` is the home directory."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Wrong(f"{shown(value)} is not a path", "write a path such as /var/lib/rateway")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise Wrong(f"{shown(value)} names a home that nobody has", "write the whole path") from None


def words(value: object) -> list[str]:
    """Words from a list, or from a text with commas or spaces between them."""
    if isinstance(value, str):
        return [word for word in re.split(r"[\s,]+", value) if word]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return [word.strip() for word in value if word.strip()]
    raise Wrong(
        f"{shown(value)} is not a list of names", 'write names with commas between them, or a list ["A", "B"]'
    )


def intents_of(value: object) -> int:
    """Return the bits of a number, of names, or of a list of names; every wrong name is reported."""
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        raise Wrong(
            f"{shown(value)} is neither a number nor names of intents", "write GUILDS,GUILD_MESSAGES, say"
        )
    parts: Sequence[object] = (
        [value]
        if isinstance(value, int)
        else re.split(r"[\s,|+]+", value.strip())
        if isinstance(value, str)
        else value
    )
    bits, mistakes = 0, []
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            mistakes.append(Wrong(f"{shown(part)} is not the name of an intent"))
            continue
        try:
            bits |= intents.parse(part)
        except ValueError as error:
            wrong, _, hint = str(error).partition("; ")
            advice = (
                hint or "the names are listed in docs/settings.md and by Discord (Gateway: List of Intents)"
            )
            mistakes.append(Wrong(wrong, advice))
    if mistakes:
        raise ManyWrong(mistakes)
    return bits


def events(value: object) -> frozenset[str]:
    """Read names of events. An undocumented name is taken as it is, unless it looks like a misspelling."""
    names, mistakes = set(), []
    for word in words(value):
        name = word.upper()
        close = None if name in DOCUMENTED else nearest(name, DOCUMENTED, 0.85)
        if close is not None:
            mistakes.append(Wrong(f"{shown(word)} is not an event of Discord's", f"did you mean {close}?"))
        elif name.startswith("RATEWAY_"):
            mistakes.append(Wrong(f"{name} is the gateway's own", "leave it out: it is always published"))
        elif not re.fullmatch(r"[A-Z][A-Z0-9_]{1,99}", name, re.ASCII):
            mistakes.append(
                Wrong(f"{shown(word)} is not an event's name", "write names such as MESSAGE_CREATE")
            )
        else:
            names.add(name)
    if mistakes:
        raise ManyWrong(mistakes)
    return frozenset(names)


def kinds(*known: str) -> Reader:
    """Return a set of known words."""

    def read(value: object) -> frozenset[str]:
        mistakes = []
        given = [word.lower() for word in words(value)]
        for word in given:
            if word not in known:
                close = nearest(word, known, 0.5)
                advice = f"did you mean {close}? " if close else ""
                mistakes.append(Wrong(f"{shown(word)} is not known", f"{advice}there are {', '.join(known)}"))
        if mistakes:
            raise ManyWrong(mistakes)
        return frozenset(given)

    return read


def _listed(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and all(
        isinstance(item, str | int) and not isinstance(item, bool) for item in value
    ):
        return ",".join(map(str, value))
    if isinstance(value, str):
        return value
    raise Wrong(f"{shown(value)} is not a list of numbers", "write numbers and ranges such as 1-4,7")


def clusters(value: object) -> frozenset[int] | None:
    """Return clusters such as ``1-4,7``, a number, or a list; empty means all."""
    try:
        return parse_clusters(_listed(value)) or None
    except LayoutError as error:
        raise Wrong(str(error), "write clusters and ranges such as 1-4,7") from None


def buckets(value: object) -> frozenset[int] | None:
    """Identify buckets such as ``0-7``, from 0; empty means all."""
    chosen: set[int] = set()
    text = _listed(value)
    if not text.strip():
        return None
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", part.strip(), re.ASCII)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise Wrong(
                f"{shown(part.strip())} is neither a bucket nor a range", "write buckets such as 0-7 or 0,2"
            )
        chosen.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(chosen)


def presence(value: object) -> PresenceTemplate:
    """Return a presence: JSON, or a table of the file."""
    try:
        return parse_presence(value)
    except PresenceError as error:
        example = (
            '{"status": "online", "activity": {"type": "watching", "name": "shard {shard} of {shards}"}}'
        )
        raise ManyWrong([Wrong(wrong, f"write one such as {example}") for wrong in error.args]) from None


def api_url(value: object) -> str:
    """Return the base of Discord's REST, with the version."""
    example = "write an address such as https://discord.com/api/v10"
    if not isinstance(value, str):
        raise Wrong(f"{shown(value)} is not an address", example)
    try:
        parts = urlsplit(value.strip())
        good = parts.scheme in ("http", "https") and is_host_name(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username:
        raise Wrong(f"{shown(value)} is not the base address of an API", example)
    return value.strip().rstrip("/")


def rest_base(value: object) -> str:
    """Return the address that paths such as ``/api/v10/channels`` are appended to; a version at its end is
    taken off.
    """
    return re.sub(r"/api(/v\d{1,3})?$", "", api_url(value))


def gateway_url(value: object) -> str:
    """Return the address of a gateway's WebSocket."""
    text = value.strip().rstrip("/") if isinstance(value, str) else ""
    parts = urlsplit(text) if is_gateway_url(text) else None
    if parts is None or parts.query or parts.fragment or parts.username:
        raise Wrong(
            f"{shown(value)} is not the address of a WebSocket", "write one such as wss://bots.example.org"
        )
    return text


def fleet_name(value: object) -> str:
    """Return the name of a fleet, which is part of the names of queues."""
    if not isinstance(value, str) or not is_fleet_name(value.strip()):
        raise Wrong(
            f"{shown(value)} is not the name of a fleet",
            f"write at most {MOST_NAME} small letters, digits and hyphens, such as bot-1",
        )
    return value.strip()


def domains(value: object) -> frozenset[str]:
    """Return names of hosts or domains, or addresses."""
    given = [word.lower().rstrip(".") for word in words(value)]
    mistakes = [
        Wrong(f"{shown(word)} is not a domain", "write names such as gateway.example.org")
        for word in given
        if not re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[0-9a-f:.]+", word, re.ASCII)
    ]
    if mistakes:
        raise ManyWrong(mistakes)
    return frozenset(given)


def queue_names(value: object) -> frozenset[str]:
    """Return names of queues."""
    given = words(value)
    mistakes = [
        Wrong(f"{shown(word)} is longer than a queue's name may be", "write names of at most 255 bytes")
        for word in given
        if len(word.encode("utf-8", "surrogatepass")) > 255
    ]
    if mistakes:
        raise ManyWrong(mistakes)
    return frozenset(given)


def management(value: object) -> Secret:
    """Return the base of RabbitMQ's management API. Nothing of it is shown in an error: it holds a password."""
    example = "write one such as http://USER:PASSWORD@HOST:15672, with special characters as %xx"
    if not isinstance(value, str):
        raise Wrong("it is not an address", example)
    try:
        parts = urlsplit(value.strip())
        good = parts.scheme in ("http", "https") and is_host_name(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or not value.isascii() or not value.strip().isprintable():
        raise Wrong("it is not the address of a management API", example)
    return Secret(value.strip())


def token(value: object) -> Secret:
    """Return a bot's token, bare: white space around it and the ``Bot `` of HTTP are taken off."""
    if not isinstance(value, str):
        raise Wrong("it is not a text", "write the token of the bot, from the developer portal")
    bare = commands.bare_token(value)
    if not bare:
        raise Wrong("it is empty", "write the token of the bot, from the developer portal")
    if not bare.isascii() or not bare.isprintable() or " " in bare:
        raise Wrong("it has a character that no token has", "copy it again from the developer portal")
    return Secret(bare)


def bearer(value: object) -> Secret:
    """Return a password of our own choosing, for HTTP."""
    if not isinstance(value, str) or not value.strip():
        raise Wrong("it is empty", "write a long random text")
    text = value.strip()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise Wrong("it has a character that HTTP cannot carry", "write letters and digits")
    if len(text) < LEAST_BEARER:
        raise Wrong(
            f"it is shorter than {LEAST_BEARER} characters, which can be guessed",
            "write a long random text, such as `openssl rand -hex 24` prints",
        )
    return Secret(text)


def amqp(value: object) -> Secret:
    """Return a broker's address, or a list of those of its nodes. Nothing of it is shown in an error: it holds a
    password.
    """
    example = "write one such as amqp://HOST:5672/VHOST, with USER:PASSWORD@ before HOST and special characters as %xx"
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = ",".join(each.strip() for each in value)
    if not isinstance(value, str) or not value.strip():
        raise Wrong("it is empty", example)
    try:
        # Also opens the certificates that it names.
        uri.parse(value).tls_context()
    except ValueError as error:
        raise Wrong(str(error), example) from None
    return Secret(value.strip())


def address(value: object) -> str:
    """Return ``host:port`` to listen on."""
    text = value.strip() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/]*):(\d{1,5})", text, re.ASCII)
    host = match[1] if match is not None else ""
    if match is None or not 0 < int(match[2]) < 65536 or (host and not is_host_name(host)):
        raise Wrong(
            f"{shown(value)} is not an address to listen on", "write host:port such as 127.0.0.1:8650"
        )
    return f"{match[1] or '0.0.0.0'}:{match[2]}"


def is_loopback(given: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    host = given.rpartition(":")[0].strip("[]").lower()
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
