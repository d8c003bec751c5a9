"""Read settings from the file and the environment, and collect what is wrong with them.

The environment goes over the file. Every mistake is collected, also in a value that the other source replaces.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints, overload

from rateway.config import values
from rateway.config.settings import ConfigurationError, Problem, Settings
from rateway.config.table import REMOVED, REQUIRED, ROWS, Row
from rateway.config.values import ManyWrong, Wrong, nearest

__all__ = ["VARIABLES", "load"]

Form = TypeVar("Form", bound=Settings)

# A variable that is so like one of ours is taken for a slip; below that it may belong to another program.
ALIKE_VARIABLE = 0.88
# A secret's file holds one line. Anything larger is the wrong file.
MAX_SECRET_FILE = 64 * 1024
# What is wrong with a setting of an earlier version.
NO_MORE = "there is no such setting any more"
# What people call these elsewhere; named when the right one is missing.
OTHER_NAMES = {
    "DISCORD_TOKEN": ("TOKEN", "BOT_TOKEN", "DISCORD_BOT_TOKEN"),
    "AMQP_URI": ("AMQP_URL", "AMQP", "RABBITMQ_URL", "RABBITMQ_URI", "CLOUDAMQP_URL"),
    "INTENTS": ("INTENT", "DISCORD_INTENTS"),
}
# Every variable of the environment that a setting may stand in.
VARIABLES = frozenset(
    {row.env for row in ROWS}
    | {f"{row.env}_FILE" for row in ROWS if row.secret}
    | {name for names in OTHER_NAMES.values() for name in names}
)


@dataclass(slots=True)
class _Reading:
    """The values and mistakes found so far."""

    rows: tuple[Row, ...]
    """The settings that there are."""
    problems: list[Problem] = field(default_factory=list)
    found: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    files: dict[str, Path] = field(default_factory=dict)
    """Settings that stand in a file of their own, and where that is."""
    unread: bool = False
    """Whether the file could not be read: what it says is not known, so nothing can be missing in it."""

    def wrong(self, row: Row | None, where: str, error: Wrong | ManyWrong) -> None:
        if row is not None:
            self.broken.add(row.name)
        for mistake in error.mistakes if isinstance(error, ManyWrong) else [error]:
            self.problems.append(Problem(where, mistake.wrong, mistake.instead))

    def take(self, row: Row, value: object, where: str, file: Path | None = None) -> None:
        self.files.pop(row.name, None)
        try:
            _refuse_quotes(value)
            self.found[row.name] = row.read(value)
        except (Wrong, ManyWrong) as error:
            self.wrong(row, where, error)
        else:
            # What is read later replaces it, mistakes of the replaced one stay mistakes.
            self.origins[row.name] = where
            if file is not None:
                self.files[row.name] = file.absolute()


def _refuse_quotes(value: object) -> None:
    """Refuse a value in quotes: a shell or a TOML parser would have removed them, and this reader does not."""
    text = value.strip() if isinstance(value, str) else ""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        instead = (
            "leave the quotes out: a shell takes them off, `docker run --env-file` and a secret's file do not"
        )
        raise Wrong("it stands in quotes, which are a part of it here", instead)


@overload
def load(file: Path | None, environ: Mapping[str, str]) -> Settings: ...


@overload
def load(
    file: Path | None, environ: Mapping[str, str], *, rows: tuple[Row, ...], record: type[Form]
) -> Form: ...


def load(
    file: Path | None,
    environ: Mapping[str, str],
    *,
    rows: tuple[Row, ...] = ROWS,
    record: type[Settings] = Settings,
) -> Settings:
    """Return the settings that *file* and *environ* give, the environment first.

    Args:
        file: The TOML file, if there is one.
        environ: The variables of the environment.
        rows: The settings that there are.
        record: What they fill: each row a field of a part.

    Raises:
        ConfigurationError: With every mistake in either of them.
    """
    reading = _Reading(rows)
    if file is not None:
        _read_file(reading, file)
    from_file = dict(reading.origins)
    _read_environ(reading, environ)
    _fill_in(reading, file, environ)
    _cross_check(reading, from_file)
    if reading.problems:
        raise ConfigurationError(reading.problems)
    parts: dict[str, dict[str, Any]] = {}
    for row in rows:
        part, _, name = row.fills.partition(".")
        parts.setdefault(part, {})[name] = reading.found[row.name]
    records = get_type_hints(record)
    nested: dict[str, Any] = {part: records[part](**values) for part, values in parts.items()}
    return record(**nested, amqp_file=reading.files.get("amqp"), source=file, origins=reading.origins)


# The file


def _read_file(reading: _Reading, file: Path) -> None:
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        reading.unread = True
        reading.problems.append(Problem(str(file), "it is not text in UTF-8", "save it as UTF-8"))
    except OSError as error:
        reading.unread = True
        why = error.strerror or str(error)
        reading.problems.append(
            Problem(str(file), f"it cannot be read: {why}", "name a file that is there, in TOML")
        )
    else:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            reading.unread = True
            reading.problems.append(_syntax(file, text, str(error)))
        else:
            _read_table(reading, file, text, table)


def _syntax(file: Path, text: str, said: str) -> Problem:
    match = re.search(r" \(at line (\d+), column (\d+)\)$", said)
    line = int(match[1]) if match else text.count("\n") + 1
    wrong = said[: match.start()] if match else said.removesuffix(" (at end of document)")
    # The line itself is not shown: it may be the token's.
    instead = 'write TOML: key = "text" (quoted), key = 8, key = true, or [section]'
    return Problem(f"{file}, line {line}", f"this is not TOML: {wrong[0].lower()}{wrong[1:]}", instead)


def _read_table(reading: _Reading, file: Path, text: str, table: dict[str, Any]) -> None:
    by_key = {key: row for row in reading.rows for key in (row.key, *row.also)}
    files = {f"{row.key}_file": row for row in reading.rows if row.secret}
    removed = {setting.key: setting.instead for setting in REMOVED}
    sections = {key.partition(".")[0] for key in by_key if "." in key}
    given = _flattened(table, by_key, sections)
    taken: dict[str, str] = {}
    for key, value in given.items():
        row = by_key.get(key) or files.get(key)
        line = _line_of(text, key)
        where = f"{file}{f', line {line}' if line else ''}: {key}"
        if row is None and key in removed:
            reading.problems.append(Problem(where, NO_MORE, removed[key]))
            continue
        if row is None:
            _unknown_key(reading, where, key, [*by_key, *files], sections)
            continue
        if row.name in taken:
            wrong = f"it says the same thing as {taken[row.name]}"
            reading.problems.append(Problem(where, wrong, f"keep {row.key} alone"))
        taken.setdefault(row.name, key)
        if key in files:
            _take_secret_file(reading, row, value, where, file.parent)
        else:
            reading.take(row, value, where)


def _flattened(table: dict[str, Any], by_key: Mapping[str, Row], sections: set[str]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict) and key not in by_key and (key in sections or value):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat


def _unknown_key(reading: _Reading, where: str, key: str, known: list[str], sections: set[str]) -> None:
    section, dot, inner = key.rpartition(".")
    close = nearest(key, known)
    if close is None and dot:
        # A key of the top that slipped below a section's heading, which is easily done in TOML.
        close = nearest(inner, known)
        if close is not None and "." not in close:
            instead = f"{close} stands above the first [section], not in [{section}]"
            reading.problems.append(Problem(where, "there is no such setting", instead))
            return
    if close is None:
        near = [name for name in known if name.rpartition(".")[2] == inner]
        close = near[0] if near else None
    instead = (
        f"did you mean {close}?" if close else "all settings are listed in docs/settings.md; take it out"
    )
    reading.problems.append(Problem(where, "there is no such setting", instead))


def _line_of(text: str, key: str) -> int | None:
    """Return where a key stands, as far as one can tell without a parser that keeps positions."""
    section, _, name = key.rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\s*\[\s*([\w.\"'-]+)\s*\]", line)
        if heading is not None:
            current = heading[1].strip("\"'")
            if current == key:
                return number
            continue
        found = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if found is not None and ".".join(filter(None, (current, found[1].strip("\"'")))) in (
            key,
            f"{section}.{name}",
        ):
            return number
    return None


# The environment


def _read_environ(reading: _Reading, environ: Mapping[str, str]) -> None:
    for row in reading.rows:
        value = environ.get(row.env)
        named_file = environ.get(f"{row.env}_FILE") if row.secret else None
        if named_file:
            if value and value.strip():
                wrong = f"{row.env} and {row.env}_FILE are both set"
                reading.problems.append(Problem(f"{row.env}_FILE", wrong, "keep one of them"))
            _take_secret_file(reading, row, named_file, f"{row.env}_FILE", Path())
        if value is None:
            continue
        if value.strip():
            reading.take(row, value, row.env)
        elif row.empty_is_off:
            reading.found[row.name] = None
            reading.origins[row.name] = row.env
    known = {row.env for row in reading.rows} | {f"{row.env}_FILE" for row in reading.rows if row.secret}
    removed = {setting.env: setting.instead for setting in REMOVED}
    for name in sorted(environ):
        if name in removed and environ[name].strip():
            reading.problems.append(Problem(name, NO_MORE, removed[name]))
        if name in known or name in removed or "_" not in name:
            continue
        close = nearest(name.upper(), known, ALIKE_VARIABLE)
        if close is not None and close not in environ:
            instead = f"did you mean {close}? if it is something else's, start the gateway without it"
            reading.problems.append(Problem(name, "there is no such setting", instead))


def _take_secret_file(reading: _Reading, row: Row, named: object, where: str, base: Path) -> None:
    """A secret's file holds the secret and white space around it."""
    try:
        if not isinstance(named, str) or not named.strip() or "\0" in named:
            raise Wrong("it is not the path of a file", "write the path of the file that holds the secret")
        path = base / Path(named.strip()).expanduser()
        try:
            if path.stat().st_size > MAX_SECRET_FILE:
                raise Wrong(f"{path} is larger than any secret", "name the file that holds the secret alone")
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise Wrong(f"{path} is not text", "name the file that holds the secret alone") from None
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or "no such home"
            raise Wrong(
                f"{path} cannot be read: {why}", "name a file that the gateway's user may read"
            ) from None
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) != 1:
            raise Wrong(
                f"{path} has {len(lines) or 'no'} lines of text, not one", "let it hold the secret alone"
            )
    except Wrong as error:
        reading.wrong(row, where, error)
    else:
        reading.take(row, lines[0].strip(), where, path)


# What is left


def _fill_in(reading: _Reading, file: Path | None, environ: Mapping[str, str]) -> None:
    for row in reading.rows:
        if row.name in reading.found or row.name in reading.broken:
            continue
        if row.default is not REQUIRED:
            reading.found[row.name] = row.default(environ) if callable(row.default) else row.default
            reading.origins[row.name] = "default"
            continue
        if reading.unread:
            continue
        place = f"set {row.env}{f' (or {row.env}_FILE)' if row.secret else ''}, or {row.key} in "
        place += str(file) if file is not None else "a TOML file given with -c"
        other = next((name for name in OTHER_NAMES.get(row.env, ()) if environ.get(name)), None)
        hint = f"; there is a variable {other}: was {row.env} meant?" if other else ""
        reading.problems.append(Problem(row.env, "it is required and not set", f"{place}{hint}"))
    if reading.found.get("proxy_address") is not None and reading.origins.get("event_log") == "default":
        # A proxy has nothing to send without it.
        reading.found["event_log"] = "stream"
        reading.origins["event_log"] = reading.origins["proxy_address"]


def _cross_check(reading: _Reading, from_file: Mapping[str, str]) -> None:
    """What is wrong only together."""
    found, origins = reading.found, reading.origins

    def problem(name: str, wrong: str, instead: str) -> None:
        reading.problems.append(Problem(origins.get(name, name), wrong, instead))

    def source(name: str) -> str:
        origin = origins.get(name, "default")
        return (
            "default" if origin == "default" else "file" if from_file.get(name) == origin else "environment"
        )

    if found.get("shards") is not None and source("extra_shards") == source("shards") != "default":
        wrong = "a total of shards and extra shards are both set"
        problem("shards", wrong, "keep one: the total stands in place of recommended + extra")
    alone = found.get("fleet") is None and "fleet" not in reading.broken
    if (
        found.get("clusters") is not None
        and found.get("shards") is None
        and "shards" not in reading.broken
        and alone
    ):
        wrong = "the total of shards is not set: each gateway of the bot takes what Discord recommends at its start"
        problem(
            "clusters", wrong, "set SHARDS as well, to the same number for all gateways of the bot, or FLEET"
        )
    published, hidden = found.get("events"), found.get("events_except")
    if isinstance(published, frozenset) and isinstance(hidden, frozenset):
        if both := sorted(published & hidden):
            problem(
                "events_except", f"{', '.join(both)} is in EVENTS as well", "take it out of one of the two"
            )
        if not published:
            problem("events", "it names no event", "leave it out for all events")
    listen = found.get("http_address")
    guarded = found.get("http_token") or "http_token" in reading.broken
    if isinstance(listen, str) and not values.is_loopback(listen) and not guarded:
        wrong = f"{listen} can be reached from other machines, and there is no HTTP_TOKEN"
        problem("http_address", wrong, "set HTTP_TOKEN or HTTP_TOKEN_FILE, or listen on 127.0.0.1")
    if found.get("proxy_address") is not None and found.get("event_log") == "off":
        wrong = "the proxy at PROXY_ADDRESS has nothing to send to bots without an event log"
        problem(
            "event_log", wrong, "leave it out, which keeps a log for the proxy, or leave PROXY_ADDRESS out"
        )
    listen = found.get("proxy_address")
    if isinstance(listen, str) and not values.is_loopback(listen):
        if not found.get("proxy_token") and "proxy_token" not in reading.broken:
            wrong = f"{listen} can be reached from other machines, and there is no PROXY_TOKEN"
            problem("proxy_address", wrong, "set PROXY_TOKEN or PROXY_TOKEN_FILE, or listen on 127.0.0.1")
        covered = found.get("proxy_cert") or found.get("proxy_behind_tls") or "proxy_cert" in reading.broken
        if not covered:
            wrong = f"{listen} can be reached from other machines, and the token would travel in the clear"
            problem(
                "proxy_address",
                wrong,
                "set PROXY_CERT and PROXY_KEY, or PROXY_BEHIND_TLS=true where another server does TLS",
            )
    if (
        found.get("proxy_key") is not None
        and found.get("proxy_cert") is None
        and "proxy_cert" not in reading.broken
    ):
        problem("proxy_key", "there is no certificate for this key", "set PROXY_CERT as well")
    if found.get("cache_renew") and found.get("cache_enabled") is False:
        problem("cache_renew", "the cache is off", "switch CACHE_ENABLED on, or leave this out")
