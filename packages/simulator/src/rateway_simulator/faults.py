"""The faults that can be injected: their kinds, the connections that they hit, and when they come.

A fault is written the same way everywhere: `kind:key=value,key=value` on the command line
(`close:code=4000,shards=0-3,every=10`), a `[[fault]]` table in a scenario file, and a JSON object in `POST
/simulator/faults`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol


class Chance(Protocol):
    """`random.Random(seed)` will do."""

    def sample(self, population: Sequence[int], k: int) -> list[int]:
        """`k` of the population, none twice."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it does, which fields it uses, and whether it hits shards' connections."""

    does: str
    uses: frozenset[str]
    on_connections: bool


def _kind(does: str, uses: str = "", *, on_connections: bool = True) -> Kind:
    return Kind(does, frozenset(uses.split()), on_connections)


KINDS: Mapping[str, Kind] = {
    # Connections of the shards named
    "cut": _kind("Drops TCP without a close frame."),
    "op1": _kind("Asks for a heartbeat (op 1)."),
    "op7": _kind("Sends Reconnect (op 7) and closes after 5 seconds if the client has not."),
    "op9": _kind("Sends Invalid Session (op 9); the session ends unless resumable=true.", "resumable"),
    "close": _kind("Closes with `code`.", "code"),
    "silence": _kind("Sends and acknowledges nothing, for `seconds` or for ever (0).", "seconds"),
    "corrupt": _kind("Sends a frame that cannot be decompressed or decoded."),
    "slow": _kind("Sends at most `bytes` a second, for `seconds` or for ever (0).", "bytes seconds"),
    "forget": _kind("Forgets the sessions: their connections are cut and a resume is refused with op 9."),
    "deaf": _kind("Their sessions live and get no events any more; a new session does."),
    # Identifying
    "op9_identify": _kind(
        "Answers every IDENTIFY with op 9, for `seconds` or `count` times.",
        "seconds count",
        on_connections=False,
    ),
    "no_ready": _kind(
        "IDENTIFYs get no READY, for `seconds` or `count` times.", "seconds count", on_connections=False
    ),
    "no_guilds": _kind(
        "New sessions get their guilds' events and no GUILD_CREATE, for `seconds` or `count` times.",
        "seconds count",
        on_connections=False,
    ),
    "most_guilds": _kind(
        "An IDENTIFY for a shard with more than `value` guilds is closed with 4011.",
        "value",
        on_connections=False,
    ),
    # Dialling
    "dead_host": _kind(
        "Connections to `host` are refused for `seconds`.", "host seconds", on_connections=False
    ),
    "refusing_host": _kind(
        "`host` answers upgrades with `status`.", "host status seconds", on_connections=False
    ),
    "silent_host": _kind("`host` accepts TCP and says nothing.", "host seconds", on_connections=False),
    "upgrade": _kind(
        "All hosts answer upgrades with `status` (and Retry-After), for `seconds` or `count` times.",
        "status retry_after seconds count",
        on_connections=False,
    ),
    "no_hello": _kind(
        "New connections get no Hello, for `seconds` or `count` times.", "seconds count", on_connections=False
    ),
    "op7_hello": _kind("New connections get op 7 instead of Hello.", "seconds count", on_connections=False),
    # REST and what it says
    "rest": _kind(
        "REST answers `status` (0: never answers), for `seconds`.",
        "status retry_after seconds",
        on_connections=False,
    ),
    "shards": _kind("GET /gateway/bot recommends `value` shards.", "value", on_connections=False),
    "concurrency": _kind("max_concurrency becomes `value`.", "value", on_connections=False),
    "budget": _kind("`value` identifies remain.", "value", on_connections=False),
    "intents": _kind(
        "The privileged intents in `value` (a bit field) are switched on, the others off; sessions that have one "
        "of these are closed with 4003.",
        "value",
        on_connections=False,
    ),
    "token_reset": _kind("The token is no longer valid: all sessions end with 4004.", on_connections=False),
}

# Which host a fault of dialling hits: the main one, all resume hosts, or one by its number.
MAIN_HOST = "main"
ALL_RESUME_HOSTS = "resume"


class FaultError(ValueError):
    """A fault or scenario that cannot be understood; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `shards` is `all`, `random:2` (that many) or a list like `0,4-7`."""

    kind: str
    shards: str = "all"
    resumable: bool = False
    code: int = 4000
    seconds: float = 0.0
    bytes: int = 1024
    host: str = ALL_RESUME_HOSTS
    status: int = 503
    retry_after: float | None = None
    count: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A fault at `at` seconds after the start and, if `every` is not 0, again each `every` seconds."""

    fault: Fault
    at: float
    every: float = 0.0


_TYPES: Mapping[str, type] = {
    "resumable": bool,
    "code": int,
    "seconds": float,
    "bytes": int,
    "status": int,
    "retry_after": float,
    "count": int,
    "value": int,
}
_COMMON = frozenset({"kind", "shards", "at", "every"})


def parse(table: Mapping[str, Any]) -> Scheduled:
    """Read a fault from a table of values (strings are converted); `at` is 0 without one. Raises FaultError."""
    name = table.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or kind is None:
        raise FaultError(f"no fault of kind {name!r}; there are: {', '.join(KINDS)}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _COMMON and key not in kind.uses:
            can = ", ".join(sorted((kind.uses | _COMMON) - {"kind"}))
            raise FaultError(f"fault {name} has no {key!r}; it can have: {can}")
        values[key] = _converted(name, key, value)
    at, every = float(values.pop("at", values.get("every", 0.0))), float(values.pop("every", 0.0))
    if at < 0 or every < 0:
        raise FaultError(f"fault {name}: at and every are seconds and not negative")
    fault = Fault(**values)
    _check(fault)
    return Scheduled(fault, at, every)


def _converted(kind: str, key: str, value: Any) -> Any:
    wanted = float if key in ("at", "every") else _TYPES.get(key, str)
    try:
        if wanted is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if wanted is str and isinstance(value, list):
            return ",".join(str(item) for item in value)
        return wanted(value)
    except (ValueError, TypeError, KeyError):
        raise FaultError(f"fault {kind}: {key}={value!r} is not a value of type {wanted.__name__}") from None


def _check(fault: Fault) -> None:
    chosen(fault.shards, [], None)
    if fault.kind == "close" and not 1000 <= fault.code <= 4999:
        raise FaultError(f"fault close: code={fault.code} is outside 1000 to 4999")
    if fault.kind == "close" and fault.code in (1005, 1006, 1015):
        raise FaultError(f"fault close: code={fault.code} cannot be on the wire; use the fault cut")
    if fault.kind in ("upgrade", "refusing_host") and not 400 <= fault.status <= 599:
        raise FaultError(f"fault {fault.kind}: status={fault.status} is outside 400 to 599")
    if fault.kind == "rest" and fault.status and not 400 <= fault.status <= 599:
        raise FaultError(f"fault rest: status={fault.status} is neither 0 nor in 400 to 599")
    if fault.kind == "slow" and fault.bytes < 1:
        raise FaultError("fault slow: bytes is a positive number of bytes a second")
    if fault.kind in ("shards", "concurrency", "most_guilds") and fault.value < 1:
        raise FaultError(f"fault {fault.kind}: value is at least 1")


def parse_word(word: str) -> Scheduled:
    """Read a fault as on the command line: `kind` or `kind:key=value,key=value`. Raises FaultError.

    A comma inside a list of shards stays with the list: `cut:shards=0,2,4,at=3`.
    """
    name, _, rest = word.partition(":")
    table: dict[str, Any] = {"kind": name}
    key = ""
    for part in filter(None, rest.split(",")):
        left, equals, right = part.partition("=")
        if equals:
            key = left.strip()
            table[key] = right.strip()
        elif key == "shards":
            table[key] += "," + part.strip()
        else:
            raise FaultError(f"{part!r} in fault {word!r} is not key=value")
    return parse(table)


def parse_scenario(text: str) -> tuple[Scheduled, ...]:
    """Read a scenario file: TOML with one `[[fault]]` table for each fault. Raises FaultError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FaultError(f"the scenario is not TOML: {error}") from None
    tables = document.get("fault")
    if not isinstance(tables, list) or set(document) != {"fault"}:
        raise FaultError('a scenario has [[fault]] tables and nothing else: [[fault]] kind = "cut" at = 3')
    return tuple(parse(table) for table in tables)


def chosen(shards: str, present: Sequence[int], chance: Chance | None) -> frozenset[int]:
    """Return which of the shards present are meant by `all`, `random:2` or `0,4-7`. Raises FaultError."""
    if shards == "all":
        return frozenset(present)
    word, _, amount = shards.partition(":")
    try:
        if word == "random":
            number = int(amount)
            if number < 1:
                raise ValueError
            if chance is None:
                return frozenset()
            unique = sorted(set(present))
            return frozenset(chance.sample(unique, min(number, len(unique))))
        wanted: set[int] = set()
        for part in shards.split(","):
            first, dash, last = part.partition("-")
            wanted.update(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        raise FaultError(f"shards={shards!r} is not all, random:2 or a list like 0,4-7") from None
    return frozenset(wanted) & frozenset(present)


def as_json(fault: Fault) -> dict[str, Any]:
    """Return the fault with the fields that its kind uses."""
    kind = KINDS[fault.kind]
    shown = {"kind"} | kind.uses | ({"shards"} if kind.on_connections else set())
    values = {entry.name: getattr(fault, entry.name) for entry in fields(fault) if entry.name in shown}
    return {name: value for name, value in values.items() if value is not None}
