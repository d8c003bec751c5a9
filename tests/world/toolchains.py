"""How a bot's folder becomes something that runs: one toolchain for each language.

A bot is copied to `.world/NAME`, and what its manifest asks for is installed or built there. A stamp holds the
digest of the bot's files, so that an environment is made again only when they change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[2]
BOTS: Final = Path(__file__).parent / "bots"
# Ignored by git. Kept between runs: a first build of everything takes half an hour.
CACHE: Final = ROOT / ".world"
STAMP: Final = ".prepared"
# Newer Pythons first: some libraries have left 3.11 behind.
PYTHONS: Final = ("python3.13", "python3.12", "python3.14", "python3.11")
POM: Final = "{http://maven.apache.org/POM/4.0.0}"


class NotPrepared(Exception):
    """An environment could not be made; the message says what was run and what it printed last."""


class ToolMissing(Exception):
    """A tool is not on this machine; the message names it."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One language: its name in the table, the tools it needs, and what is run to build and to start a bot."""

    language: str
    tools: tuple[str, ...]
    build: Callable[[Path], Sequence[Sequence[str]]]
    start: Callable[[Path], Sequence[str]]
    version: Callable[[Path, str], str]


def _first_python(requires: str) -> str:
    """A Python that is at least this version (`3.12`). Raises ToolMissing."""
    least = tuple(map(int, requires.split(".")))
    if sys.version_info[:2] >= least:
        return sys.executable
    for name in PYTHONS:
        if tuple(map(int, name.removeprefix("python").split("."))) < least:
            continue
        for path in [shutil.which(name), *sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))]:
            # A shim of pyenv's may stand for a version that is not there.
            if path and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0:
                return str(path)
    raise ToolMissing(f"Python {requires} or newer")


def _build_python(folder: Path) -> Sequence[Sequence[str]]:
    requires = re.search(r"^# python (\S+)$", (folder / "requirements.txt").read_text(), re.MULTILINE)
    python = _first_python(requires[1] if requires else "3.11")
    pip = (str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    return (python, "-m", "venv", "--clear", "venv"), (*pip, "-r", "requirements.txt")


def _version_python(folder: Path, package: str) -> str:
    return _found(rf"^{re.escape(package)}==(\S+)$", folder / "requirements.txt")


def _version_node(folder: Path, package: str) -> str:
    manifest = msgspec.json.decode((folder / "package.json").read_bytes())
    return str(manifest["dependencies"][package])


def _version_go(folder: Path, package: str) -> str:
    return _found(rf"{re.escape(package)} v(\S+)", folder / "go.mod")


def _version_rust(folder: Path, package: str) -> str:
    wanted = tomllib.loads((folder / "Cargo.toml").read_text())["dependencies"][package]
    return str(wanted["version"]).removeprefix("=")


def _version_java(folder: Path, package: str) -> str:
    for dependency in ET.parse(folder / "pom.xml").iter(f"{POM}dependency"):
        if dependency.findtext(f"{POM}artifactId") == package:
            return str(dependency.findtext(f"{POM}version"))
    raise ValueError(f"{package} is not in {folder / 'pom.xml'}")


def _found(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{pattern} is not in {path}")
    return match[1]


PYTHON: Final = Toolchain(
    "Python",
    (),
    _build_python,
    lambda folder: (str(folder / "venv/bin/python"), "bot.py"),
    _version_python,
)
NODE: Final = Toolchain(
    "JavaScript",
    ("node", "npm"),
    lambda folder: (("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"),),
    lambda folder: ("node", "bot.mjs"),
    _version_node,
)
GO: Final = Toolchain(
    "Go",
    ("go",),
    lambda folder: (("go", "build", "-o", "bot", "."),),
    lambda folder: (str(folder / "bot"),),
    _version_go,
)
RUST: Final = Toolchain(
    "Rust",
    ("cargo",),
    lambda folder: (("cargo", "build", "--quiet", "-j1"),),
    lambda folder: (str(folder / "target/debug/bot"),),
    _version_rust,
)
JAVA: Final = Toolchain(
    "Java",
    ("java", "javac", "mvn"),
    lambda folder: (("mvn", "--quiet", "--batch-mode", "package"),),
    lambda folder: ("java", "-cp", "target/classes:target/dependency/*", "Bot"),
    _version_java,
)


def missing_tools(toolchain: Toolchain) -> list[str]:
    """The tools of a toolchain that are not on this machine."""
    return [tool for tool in toolchain.tools if shutil.which(tool) is None]


def prepare(name: str, toolchain: Toolchain) -> Path:
    """Make the environment of a bot, unless it is there; return its folder.

    Raises ToolMissing when this machine has no tool for it, NotPrepared when building fails.
    """
    if missing := missing_tools(toolchain):
        raise ToolMissing(" and ".join(missing))
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        # Two runs of the tests at the same time must not build in one folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _prepare(name, toolchain)


def _prepare(name: str, toolchain: Toolchain) -> Path:
    source, folder = BOTS / name, CACHE / name
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return folder
    stamp.unlink(missing_ok=True)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for command in toolchain.build(folder):
        # Nice: a build must not disturb what is timed beside it.
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=folder,
            env=os.environ | {"CARGO_TARGET_DIR": str(folder / "target")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-20:])
            raise NotPrepared(f"{name}: {' '.join(command)} failed with {done.returncode}:\n{tail}")
    stamp.write_text(digest.hexdigest())
    return folder
