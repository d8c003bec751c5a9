"""Build the peers that this machine has toolchains for, and name their versions."""

from __future__ import annotations

import shutil
import subprocess
import time
import tomllib
from collections import deque
from pathlib import Path

from benchmarks.rig.child import ROOT

HERE = Path(__file__).parent
# Outside of what is packed or linted.
BUILT = ROOT / ".cache" / "peers"
# Whose versions decide a figure.
CRATES = ("flate2", "lapin", "tokio", "tokio-websockets", "twilight-gateway")
# Twilight decides at compile time how it is sent to. A proxy is sent zlib, as gateway-proxy is.
PROGRAMS = {"zlib": ("proxy", "broker"), "zstd": ("broker",)}
# The first build fetches and compiles everything: it says how far it is so often, seconds.
TELL_S = 15.0


def crates(*manifests: str) -> dict[str, str]:
    """Versions of the crates that decide, as each Cargo.toml pins them."""
    found: dict[str, str] = {}
    for manifest in map(tomllib.loads, manifests):
        for asked in (
            manifest.get("workspace", {}).get("dependencies", {}),
            manifest.get("dependencies", {}),
        ):
            for name, how in asked.items():
                version = how if isinstance(how, str) else how.get("version", "")
                if name in CRATES and version.startswith("="):
                    found[name] = version[1:]
    return found


def pinned() -> dict[str, str]:
    """Versions of what decides in Rust."""
    return crates(*(path.read_text() for path in sorted((HERE / "rust").glob("**/Cargo.toml"))))


def modules(mod: str) -> dict[str, str]:
    """Versions of the Go modules that are asked for by a go.mod itself."""
    found = {}
    for line in mod.splitlines():
        words = line.removeprefix("require ").split()
        if len(words) == 2 and words[1].startswith("v"):
            found[words[0].rpartition("/")[2]] = words[1].removeprefix("v")
    return found


def rust() -> dict[str, str]:
    """The programs for each compression, in ``BUILT``; their versions, or nothing when they cannot be built.

    What they ask for by name is pinned in their Cargo.toml; cargo writes down what that leads to.
    """
    for compression, programs in PROGRAMS.items():
        command = ["cargo", "build", "--release", "--features", compression]
        for program in programs:
            command += ["--package", program]
        more = [
            "--manifest-path",
            str(HERE / "rust" / "Cargo.toml"),
            "--target-dir",
            str(BUILT / compression),
        ]
        if not _run("Rust", "cargo (with Rust 1.89 or newer), a C compiler and cmake", command + more, HERE):
            return {}
    return pinned() | {"rust": _version("rustc", "--version")}


def go() -> dict[str, str]:
    """The program in Go, in ``BUILT``; its versions, or nothing when it cannot be built."""
    command = ["go", "build", "-mod=readonly", "-trimpath", "-o", str(BUILT / "discordgo"), "."]
    if not _run("Go", "go (1.24 or newer)", command, HERE / "go"):
        return {}
    return modules((HERE / "go" / "go.mod").read_text()) | {"go": _version("go", "version")}


def _run(language: str, needs: str, command: list[str], folder: Path) -> bool:
    if shutil.which(command[0]) is None:
        print(f"the rows in {language} are left out: install {needs}")
        return False
    BUILT.mkdir(parents=True, exist_ok=True)
    print(f"building the peers in {language}: the first time this takes minutes", flush=True)
    began = told = time.monotonic()
    last: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as build:
        assert build.stderr is not None
        for line in build.stderr:
            last.append(line.rstrip())
            if time.monotonic() > told + TELL_S:
                told = time.monotonic()
                print(f"  {told - began:.0f} s: {line.strip()}", flush=True)
    if build.returncode:
        end = "\n".join(last)
        print(f"the rows in {language} are left out, they cannot be built (needed: {needs}):\n{end}")
    return not build.returncode


def _version(*command: str) -> str:
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return next((word.removeprefix("go") for word in told if word.removeprefix("go")[:1].isdigit()), "")
