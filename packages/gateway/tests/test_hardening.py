"""What a process takes from its surroundings and gives away to them: no modules, no secrets, no core files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway import hardening, logs
from rateway.config import VARIABLES
from rateway.config.table import ROWS
from rateway.secret import Secret

TOKEN = "MTMxMzg5MjUyOTU3MzIwMDc2Nw.Gmarked.never-show-this-token-0123456789abcdef"
PASSWORD = "never show/this:pass@word"


def python(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.checklist("K62")
@given(
    names=st.lists(st.sampled_from([*sorted(VARIABLES), "PATH", "DATABASE_URL", "NOTES", "TZ"]), max_size=12),
    around=st.tuples(st.text("abc =;", max_size=4), st.text("abc =;", max_size=4)),
    secret=st.sampled_from([TOKEN, f"Bot {TOKEN}", PASSWORD, "never%20show%2Fthis%3Apass%40word"]),
)
def test_no_variable_that_a_child_gets_holds_a_secret_whatever_its_name(
    names: list[str], around: tuple[str, str], secret: str
) -> None:
    logs.hide(Secret(TOKEN), Secret("amqp://u:never%20show%2Fthis%3Apass%40word@host/"))
    environ = {name: secret.join(around) for name in names} | {"HOME": "/root", "LANG": "C.UTF-8"}
    given_on = hardening.child_environment(environ, VARIABLES, logs.redact)
    assert given_on.keys() - {"PYTHONPATH"} == {"HOME", "LANG", "PYTHONSAFEPATH"}


@pytest.mark.checklist("K62")
def test_every_setting_stays_behind_with_its_file_and_the_names_that_it_has_elsewhere() -> None:
    names = {row.env for row in ROWS} | {f"{row.env}_FILE" for row in ROWS if row.secret}
    names |= {"TOKEN", "BOT_TOKEN", "RABBITMQ_URL", "AMQP_URL"}
    given_on = hardening.child_environment(dict.fromkeys(names, "x"), VARIABLES, logs.redact)
    assert not names & given_on.keys()


@pytest.mark.checklist("K55")
def test_places_of_modules_in_the_working_directory_are_not_given_on() -> None:
    environ = {"PYTHONPATH": os.pathsep.join(["", "/opt/a", ".", "b/c", "/opt/d"])}
    given_on = hardening.child_environment(environ, (), str)
    assert given_on["PYTHONPATH"].split(os.pathsep)[:2] == ["/opt/a", "/opt/d"]
    assert all(os.path.isabs(place) for place in given_on["PYTHONPATH"].split(os.pathsep))
    assert given_on["PYTHONSAFEPATH"] == "1"


@pytest.mark.checklist("K55")
@pytest.mark.parametrize("how", [["-m", "place"], ["-P", "-m", "rateway.hardening"]])
@pytest.mark.parametrize("places", ["", ".", os.pathsep])
def test_the_working_directory_is_forgotten(tmp_path: Path, how: list[str], places: str) -> None:
    (tmp_path / "place.py").write_text(
        "import sys\nfrom rateway import hardening\nhardening.forget_working_directory()\n"
        "try:\n    import planted\nexcept ImportError:\n    print('kept out')\n"
    )
    (tmp_path / "planted.py").write_text("print('executed')\n")
    root = str(Path(hardening.__file__).parents[1])
    said = python(*how, cwd=tmp_path, PYTHONPATH=os.pathsep.join([root, places]))
    assert "executed" not in said
    assert "kept out" in said or "rateway.hardening" in how


@pytest.mark.checklist("K55")
def test_a_child_finds_the_package_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('executed')\n")
    environment = hardening.child_environment(os.environ, VARIABLES, logs.redact)
    command = hardening.child_command("rateway", "--version")
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith("rateway "), done.stderr


@pytest.mark.checklist("K62")
@pytest.mark.parametrize(
    ("debuggable", "dumpable", "limit"), [("", "0", "(0, 0)"), ("0", "0", "(0, 0)"), ("1", "1", "")]
)
def test_memory_goes_into_no_core_file_and_to_no_debugger(debuggable: str, dumpable: str, limit: str) -> None:
    look = (
        "import ctypes, resource; from rateway import hardening; hardening.keep_memory_private()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    said = python("-c", look, RATEWAY_DEBUGGABLE=debuggable)
    assert said.startswith(f"{dumpable} {limit}")


@pytest.mark.checklist("K62")
def test_a_command_may_open_as_many_files_as_are_allowed_without_rights() -> None:
    told = (
        "import resource, runpy, sys\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "most = 1000 if most == resource.RLIM_INFINITY else min(most, 1000)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))\n"
        "sys.argv = ['rateway', '--version']\n"
        "try:\n"
        "    runpy.run_module('rateway', run_name='__main__')\n"
        "except SystemExit:\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))\n"
    )
    assert python("-c", told).split()[-1] == "True"


def test_every_signal_that_would_end_a_process_is_ignored_but_for_those_with_a_meaning() -> None:
    assert {
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGQUIT,
        signal.SIGALRM,
        signal.SIGRTMIN,
    } <= hardening.ENDING
    meant = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP}
    assert not meant & hardening.ENDING
    # By default each of them ends a process, which is what the kernel says of it here.
    code = "import os, signal, sys\nos.kill(os.getpid(), int(sys.argv[1]))\nprint('lives', flush=True)"
    # What starts the tests in the background may ignore some of them, and children inherit that.
    default = "import signal, sys\nsignal.signal(int(sys.argv[1]), signal.SIG_DFL)\n" + code
    for number in sorted(hardening.ENDING)[::6]:
        done = subprocess.run(
            [sys.executable, "-c", default, str(int(number))], capture_output=True, check=False
        )
        assert done.returncode == -number, number
        lives = "from rateway import hardening; hardening.ignore_ending_signals()\n" + code
        assert python("-c", lives, str(int(number))) == "lives\n"
