"""The form of log lines, and the secrets that are removed from every one of them.

A message for people, fields for machines: ``log.info("…", extra={"shard": 3, "cluster": 1, "action": "resume"})``.
Every record of every library passes here: registered secrets are replaced before any handler can see the message,
and in the tracebacks that our own handler writes; control characters, with which a stranger's guild name could forge
a line, are escaped.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Literal
from urllib.parse import quote, unquote, urlsplit

from rateway.secret import Secret

__all__ = ["FIELDS", "LogSettings", "configure", "escape", "hide", "line_start", "redact", "set_level"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The settings of the log."""

    level: str
    """One of ``debug``, ``info``, ``warning``, ``error``."""
    format: Literal["text", "json"]


# Fields that lines carry beside the message, in this order.
FIELDS = ("process", "cluster", "shard", "action")
HIDDEN = "***"
# To the beginning of the line, and nothing on it (ECMA-48).
ERASE_LINE = "\r\x1b[2K"
# A shorter password is a word that stands in messages by chance; it is hidden within addresses only.
LEAST_SECRET = 6

# What begins a line, moves the cursor, or turns the direction of the text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# A bot's token, also one that was not registered: id in base64, time, signature.
_TOKEN = re.compile(r"\b[A-Za-z0-9_-]{17,30}\.[A-Za-z0-9_-]{5,8}\.[A-Za-z0-9_-]{25,}")
# Digits and a slash after the colon are a port and a path, in which an @ may stand as in `/applications/@me`.
_PASSWORD_IN_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]{1,20}://[^\s:/@]*):(?!\d{1,5}/)[^\s@]+@", re.IGNORECASE)
# The token in a path of Discord's REST: it stands behind the id of a webhook or an interaction.
_TOKEN_IN_PATH = re.compile(r"(/(?:webhooks|interactions)/+\d+/+)[^\s/?'\"]+")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Hidden:
    """The texts that are replaced. One of them for the whole process, since logging is one for the whole process."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.pattern: re.Pattern[str] | None = None

    def add(self, texts: Iterable[str]) -> None:
        self.texts.update(text for text in texts if len(text) >= LEAST_SECRET)
        # The longest first: an address before the password within it.
        longest = sorted(self.texts, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None


_hidden = _Hidden()


def hide(*secrets: Secret | str | None) -> None:
    """Never show these again, in whatever form they turn up; of an address also its password alone."""
    for secret in secrets:
        text = secret.reveal() if isinstance(secret, Secret) else secret
        if not text:
            continue
        forms = {text}
        try:
            password = urlsplit(text).password
        except ValueError:
            password = None
        if password:
            forms |= {password, unquote(password)}
        for form in list(forms):
            forms |= {quote(form, safe=""), json.dumps(form)[1:-1], repr(form)[1:-1]}
        _hidden.add(forms)


def redact(text: str) -> str:
    """*text* without any registered secret, any password in an address, anything that looks like a bot's token, and the
    token of a webhook or an interaction in a path."""
    if _hidden.pattern is not None:
        text = _hidden.pattern.sub(HIDDEN, text)
    if "://" in text:
        text = _PASSWORD_IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text)
    if "/" in text:
        text = _TOKEN_IN_PATH.sub(rf"\1{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text) if "." in text else text


def escape(text: str) -> str:
    """*text* on one line: control characters and those that turn the direction of the text are shown as escapes."""

    def shown(match: re.Match[str]) -> str:
        code = ord(match[0])
        named = {9: "\\t", 10: "\\n", 13: "\\r", 27: "\\e"}.get(code)
        return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")

    return _CONTROLS.sub(shown, text)


class Record(logging.LogRecord):
    """A record whose message is redacted for every handler."""

    def getMessage(self) -> str:  # noqa: N802 (logging's name)
        """Return the message with its arguments, without secrets."""
        try:
            return redact(super().getMessage())
        except Exception as error:  # noqa: BLE001 (a bad format string must not end a task, nor show its arguments)
            return f"{redact(str(self.msg))} (this message could not be written: {type(error).__name__})"


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self.label = process

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        given = {"process": self.label or None, **{name: getattr(record, name, None) for name in FIELDS[1:]}}
        return {name: value for name, value in given.items() if value is not None}

    def trace(self, record: logging.LogRecord) -> str:
        """Return the traceback, redacted; line breaks are its only control characters."""
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info))
        elif record.exc_text:
            text = record.exc_text
        else:
            text = ""
        if record.stack_info:
            text += record.stack_info
        return redact(text).strip("\n")

    @staticmethod
    def clock(record: logging.LogRecord) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class TextFormatter(_Formatter):
    """A line for a person: time, level, where, message. A traceback follows, each line of it set off with a bar."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break at its end."""
        fields = self.fields(record)
        action = fields.pop("action", None)
        where = " ".join(
            str(value) if name == "process" else f"{name} {value}" for name, value in fields.items()
        )
        message = escape(record.getMessage())
        parts = [
            self.clock(record),
            f"{record.levelname.lower():7}",
            f"[{escape(where)}]" if where else "",
            message,
        ]
        line = " ".join(part for part in parts if part)
        if action is not None:
            line += f" ({escape(str(action))})"
        line = redact(line)
        trace = self.trace(record)
        # A message within a traceback may hold line breaks of a stranger's: the bar keeps them from passing for ours.
        return "\n".join([line, *(f"  | {escape(part)}" for part in trace.split("\n") if trace)])


class JsonFormatter(_Formatter):
    """A line for a machine: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break at its end."""
        line: dict[str, Any] = {
            "time": self.clock(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **self.fields(record),
            "logger": record.name,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in line and not name.startswith("_"):
                line[name] = value if isinstance(value, int | float | bool | None) else str(value)
        trace = self.trace(record)
        if trace:
            line["traceback"] = trace
        # ASCII: what would be a control character or a line break to any reader is an escape.
        return redact(json.dumps(line, default=str, ensure_ascii=True))


def line_start(stream: IO[str], format: str) -> str:  # noqa: A002 (the word of the setting)
    """What a line in *stream* begins with. On a terminal it erases where it starts: the start's progress stands
    there, and is drawn again below."""
    return ERASE_LINE if format == "text" and stream.isatty() else ""


class _Handler(logging.StreamHandler[IO[str]]):
    def __init__(self, stream: IO[str], before: str) -> None:
        super().__init__(stream)
        self._before = before

    def format(self, record: logging.LogRecord) -> str:
        return self._before + super().format(record)


def configure(
    level: str = "info",
    format: Literal["text", "json"] = "text",  # noqa: A002 (the word of the setting)
    *,
    secrets: Iterable[Secret | str | None] = (),
    process: str = "",
    stream: IO[str] | None = None,
) -> logging.Handler:
    """Send all of logging to *stream* (standard error) in one form, without *secrets*; returns the handler.

    *process* labels every line. Uncaught exceptions and warnings are written the same way. May be called again.
    """
    hide(*secrets)
    logging.setLogRecordFactory(Record)
    target = stream if stream is not None else sys.stderr
    handler = _Handler(target, line_start(target, format))
    handler.setFormatter(JsonFormatter(process) if format == "json" else TextFormatter(process))
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "rateway", False):
            root.removeHandler(old)
    handler.rateway = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    set_level(level)
    logging.captureWarnings(True)
    # A handler that fails prints the record with its arguments; they are no more for a terminal than for a log.
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    return handler


def set_level(level: str) -> None:
    """Change what is logged, also while the gateway runs."""
    number: int = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number)
    # These speak of every frame and request at debug level; what they have to say is not about the gateway.
    for name in ("aiormq", "aio_pika", "asyncio", "picows", "aiohttp.access"):
        logging.getLogger(name).setLevel(max(number, logging.INFO if level == "debug" else logging.WARNING))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("rateway").critical("an error that nobody expected", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
