"""Log lines: whole, readable, and without any secret."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway import logs
from rateway.secret import Secret

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.Gmarkd.sw0rdfishmarkedsw0rdfishmarked"
ADDRESS = "amqp://user:p%40ss-sw0rdfish@broker:5672/vhost"


@contextmanager
def logging_to(form: str = "text", level: str = "debug", process: str = "") -> Iterator[io.StringIO]:
    """All of logging into a text, and everything as it was afterwards."""
    stream = io.StringIO()
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    before = root.level, logging.raiseExceptions, sys.excepthook, threading.excepthook, sys.unraisablehook
    secrets = (Secret(TOKEN), Secret(ADDRESS), None)
    handler = logs.configure(level, form, secrets=secrets, process=process, stream=stream)  # type: ignore[arg-type]
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        logging.captureWarnings(False)
        logging.setLogRecordFactory(factory)
        root.setLevel(before[0])
        logging.raiseExceptions = before[1]
        sys.excepthook, threading.excepthook, sys.unraisablehook = before[2:]


log = logging.getLogger("rateway.test")


def fail_with_secrets() -> None:
    secret = TOKEN
    try:
        raise ValueError(f"inner {ADDRESS}")
    except ValueError as error:
        raise RuntimeError(f"outer {secret}") from error


def test_a_line_says_when_how_grave_where_and_what() -> None:
    with logging_to(process="runner 2") as out:
        log.info("%d guilds", 3, extra={"shard": 3, "cluster": 1, "action": "ready"})
        log.warning("careful")
    first, second = out.getvalue().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(stamp + r" info    \[runner 2 cluster 1 shard 3\] 3 guilds \(ready\)", first)
    assert re.fullmatch(stamp + r" warning \[runner 2\] careful", second)


def test_a_line_for_a_machine_is_one_object_with_its_fields() -> None:
    with logging_to("json", process="runner 2") as out:
        log.info("%d guilds", 3, extra={"shard": 3, "cluster": 1, "action": "ready", "code": 4000})
    line = json.loads(out.getvalue())
    assert line | {"time": ""} == {
        "time": "", "level": "info", "message": "3 guilds", "process": "runner 2", "cluster": 1, "shard": 3,
        "action": "ready", "logger": "rateway.test", "code": 4000,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_form_of_a_secret_reaches_a_line(form: str) -> None:
    with logging_to(form) as out:
        log.info("identify %s", TOKEN)
        log.info("header %r", {"Authorization": f"Bot {TOKEN}"})
        log.info("connecting to %s", ADDRESS)
        log.info("password %s or %s", "p@ss-sw0rdfish", "p%40ss-sw0rdfish")
        log.info("address elsewhere amqps://other:sw0rdfish-too@host/ and redis://:sw0rdfish@host")
        log.info("unregistered OTg3NjU0MzIxMDk4NzY1NDMy.Gsw0rd.sw0rdfishsw0rdfishsw0rdfish")
        log.info("wrong format %d", f"sw0rdfish {TOKEN}")
        log.info("extra", extra={"url": ADDRESS, "shard": TOKEN})
        log.debug(f"{Secret(TOKEN)} {Secret(TOKEN)!r}")
        try:
            fail_with_secrets()
        except RuntimeError:
            log.exception("failed with %s", TOKEN)
        sys.excepthook(RuntimeError, RuntimeError(TOKEN), None)
        logging.getLogger("aiohttp.client").error("of a library %s", ADDRESS, stack_info=True)
    text = out.getvalue()
    assert "sw0rdfish" not in text
    assert "p@ss" not in text and TOKEN[:20] not in text
    assert text.count("***") > 10


def test_a_traceback_is_told_with_each_line_set_off() -> None:
    with logging_to() as out:
        try:
            fail_with_secrets()
        except RuntimeError:
            log.exception("failed")
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("  | ") for line in rest)
    assert "ValueError: inner" in out.getvalue() and "RuntimeError: outer" in out.getvalue()


FORGED = "name\n2026-01-01T00:00:00.000Z info    [shard 0] all is well\x1b[2J\r\u202e\u2028\x85"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_of_a_stranger_cannot_forge_a_line(form: str) -> None:
    with logging_to(form) as out:
        log.info("guild %s", FORGED, extra={"action": FORGED})
        try:
            raise ValueError(FORGED)
        except ValueError:
            log.exception("failed")
    text = out.getvalue()
    assert not [character for character in "\x1b\r\u202e\u2028\x85" if character in text]
    for line in text.splitlines():
        assert line.startswith(("20", "  | ", "{"))
        assert not line.startswith("2026-01-01")


@given(st.text(max_size=60))
def test_an_escaped_text_is_one_printable_line(text: str) -> None:
    shown = logs.escape(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=6, max_size=30), st.text(max_size=20))
def test_a_registered_text_is_gone_wherever_it_stood(secret: str, around: str) -> None:
    hidden = logs._Hidden()
    hidden.add({secret})
    assert hidden.pattern is not None
    left = hidden.pattern.sub("", f"{around}{secret}{around}")
    assert secret not in left or secret in around + around


def test_a_short_word_is_no_secret() -> None:
    logs.hide("guest")
    assert logs.redact("a guest came") == "a guest came"
    assert logs.redact("amqp://guest:guest@localhost/") == "amqp://guest:***@localhost/"


def test_an_at_sign_in_a_path_is_no_password() -> None:
    address = "http://127.0.0.1:8080/api/v10/applications/@me"
    assert logs.redact(f"no connection to {address}") == f"no connection to {address}"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (
            "url='https://discord.com/api/v10/webhooks/1/aW50-_?wait=1'",
            "url='https://discord.com/api/v10/webhooks/1/***?wait=1'",
        ),
        (
            "Connection timeout to host http://x/interactions/12/aW50/callback",
            "Connection timeout to host http://x/interactions/12/***/callback",
        ),
        ("<Request POST /webhooks//1//aW50 >", "<Request POST /webhooks//1//*** >"),
        ("/api/v10/channels/1/messages/2", "/api/v10/channels/1/messages/2"),
    ],
)
def test_the_token_of_a_webhook_or_an_interaction_is_no_part_of_a_path(text: str, redacted: str) -> None:
    assert logs.redact(text) == redacted


def test_levels_are_kept_and_can_be_changed_while_it_runs() -> None:
    with logging_to(level="warning") as out:
        log.info("not shown")
        logs.set_level("info")
        log.info("shown")
    assert "not shown" not in out.getvalue() and "shown" in out.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("form", "erased"), [("text", True), ("json", False)])
def test_a_line_on_a_terminal_takes_the_place_of_the_starts_progress(
    form: Literal["text", "json"], erased: bool
) -> None:
    out = Terminal()
    with logging_to():
        handler = logs.configure("info", form, stream=out)
        log.info("a line")
        logging.getLogger().removeHandler(handler)
    assert out.getvalue().startswith("\r\x1b[2K") is erased


def test_configuring_twice_writes_each_line_once() -> None:
    with logging_to() as out:
        handler = logs.configure("info", stream=out)
        log.info("once")
        logging.getLogger().removeHandler(handler)
    assert out.getvalue().count("once") == 1


def test_what_nobody_caught_comes_out_redacted_too() -> None:
    code = f"""
import logging, threading, warnings
from rateway import logs
logs.configure("info", "text", secrets=[{TOKEN!r}])
warnings.warn("warned {TOKEN}")
thread = threading.Thread(target=lambda: 1 / int("{TOKEN}"))
thread.start(); thread.join()
class Bad:
    def __del__(self): raise ValueError("{TOKEN}")
Bad()
raise RuntimeError("{TOKEN}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "sw0rdfish" not in done.stderr
    for word in ("warned", "RuntimeError", "invalid literal", "ValueError"):
        assert word in done.stderr
