"""What a machine lacks is said first, once, in one line to paste; nothing is installed or started before."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packages.workspace import ROOT

#: Programs that the scripts call and every system has.
SYSTEM = (
    "sh",
    "awk",
    "basename",
    "chmod",
    "cat",
    "cut",
    "date",
    "dirname",
    "grep",
    "mktemp",
    "printf",
    "rm",
    "sed",
    "tail",
    "tee",
    "xargs",
)
#: A Python as Debian has it: new enough, with or without venv, without headers.
PYTHON = """#!/bin/sh
case "$*" in
    *"import venv, ensurepip"*) exit {venv} ;;
    *%d*) echo 3.11 ;;
    *get_path*) echo /usr/include/python3.99 ;;
esac
"""


class Machine:
    """A folder of programs in place of a system's."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.checkout = folder / "checkout"
        self.checkout.mkdir()
        for name in SYSTEM:
            found = shutil.which(name)
            assert found is not None, name
            (self.programs / name).symlink_to(found)
        (self.checkout / "tools").symlink_to(ROOT / "tools")
        # Whatever is installed or started leaves its words here.
        self.called = folder / "called"
        # Debian asks it whether a package may start its service.
        self.policy = folder / "policy-rc.d"
        self.has(
            "apt-get",
            f"""
echo "$*" >>{self.called}
tail -n 1 {self.policy} >>{folder}/answers
echo "0 upgraded, 2 newly installed"
echo "Setting up gcc (1)"
""",
        )
        self.user(1000)

    def has(self, name: str, script: str = "") -> None:
        path = self.programs / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def user(self, number: int) -> None:
        self.has("id", f'case "$1" in -u) echo {number} ;; *) echo somebody ;; esac')

    def run(self, target: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tools/install-system", target],
            cwd=self.checkout,
            env={
                "PATH": str(self.programs),
                "RATEWAY_RABBITMQ_PROGRAMS": "/nonexistent",
                "POLICY_RC_D": str(self.policy),
            }
            | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def line_to_paste(said: str) -> list[str]:
    (packages,) = re.findall(r"^    sudo sh -c '.* --no-install-recommends ([^']*)'$", said, re.MULTILINE)
    return str(packages).split()


def test_without_root_all_that_is_missing_is_one_line_and_nothing_happens(machine: Machine) -> None:
    machine.has("python3", PYTHON.format(venv=1))
    done = machine.run("demo")
    assert done.returncode == 1 and done.stdout == ""
    assert line_to_paste(done.stderr) == [
        "python3.11-venv", "rabbitmq-server", "gcc", "libc6-dev", "python3.99-dev",
    ]  # fmt: skip
    assert "AMQP_URI=amqp://user:password@host/vhost make demo" in done.stderr
    assert not machine.called.exists() and [each.name for each in machine.checkout.iterdir()] == ["tools"]


def test_without_any_python_it_is_one_line_too(machine: Machine) -> None:
    done = machine.run("demo")
    assert done.returncode == 1
    assert line_to_paste(done.stderr)[:3] == ["python3", "python3-venv", "rabbitmq-server"]


def test_a_broker_elsewhere_needs_none_here_and_a_compiler_may_be_missing(machine: Machine) -> None:
    machine.has("python3", PYTHON.format(venv=0))
    done = machine.run("demo", AMQP_URI="amqp://elsewhere/")
    assert done.returncode == 0 and "going on without" in done.stderr
    assert line_to_paste(done.stderr) == ["gcc", "libc6-dev", "python3.99-dev"]
    assert machine.run("demo", AMQP_URI="amqp://elsewhere/", RATEWAY_PLAIN="1").stderr == ""


def test_who_runs_a_bot_may_have_the_broker_elsewhere(machine: Machine) -> None:
    machine.has("python3", PYTHON.format(venv=0))
    done = machine.run("install", RATEWAY_PLAIN="1")
    assert done.returncode == 0 and line_to_paste(done.stderr) == ["rabbitmq-server"]


def test_root_gets_all_of_it_in_one_go(machine: Machine) -> None:
    machine.has("python3", PYTHON.format(venv=1))
    machine.user(0)
    done = machine.run("demo")
    assert done.returncode == 0, done.stderr
    update, install = machine.called.read_text().splitlines()
    assert "update" in update and install.endswith(
        "python3.11-venv rabbitmq-server gcc libc6-dev python3.99-dev"
    )
    assert (machine.policy.parent / "answers").read_text() == "exit 101\n" * 2 and not machine.policy.exists()
    assert "no service is started" in done.stdout and re.search(r"installed in \d+ s", done.stdout)


def test_an_apt_that_fails_ends_what_cannot_go_on_without(machine: Machine) -> None:
    machine.has("python3", PYTHON.format(venv=0))
    machine.user(0)
    machine.has("apt-get", "echo 'E: no such package'; exit 100")
    done = machine.run("demo")
    assert done.returncode == 1 and "E: no such package" in done.stdout and "rabbitmq-server" in done.stderr
    assert machine.run("install").returncode == 0


def test_progress_is_a_line_for_every_tenth_step_and_errors_are_shown() -> None:
    text = (
        "".join(f"Collecting p{n}==1\n" for n in range(25)) + "Installing collected packages: p\nERROR: no\n"
    )
    done = subprocess.run(
        [ROOT / "tools/progress", "25", "Collecting"], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["  10 of 25", "  20 of 25", "  25 of 25", "  unpacking", "ERROR: no"]
