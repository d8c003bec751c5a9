"""Compile the modules that have a compiled form: every ``.pyx`` under src/, and every ``compiled.pxd`` without one.

Each of them has a form in plain Python as well. Beside a ``compiled.pxd`` that form, ``plain.py``, is the source of
both: it is compiled as it stands, with the types that the ``.pxd`` declares. Where there is no C compiler, or no header
of Python's, the package is installed all the same, and a line says what is missing; with ``RATEWAY_PLAIN=1`` that is
the wish.

hatchling calls this as its build hook: an editable installation gets compiled modules beside their sources, a wheel
carries them and the tag of its platform. ``python hatch_build.py`` does the former alone, for what has changed since.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["CompileHook", "compile_into", "fresh", "lacking", "plain", "sources"]

SOURCES = "src"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
# Wheels and images move between machines: nothing of this processor's own (-march=native). Signed numbers wrap as they
# do in Python's own build.
FLAGS = ("-O3", "-DNDEBUG", "-fwrapv", "-fPIC", "-shared", "-pthread")


class CompileHook(BuildHookInterface[Any]):
    """What hatchling calls before it packs a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; what came of it goes into the wheel, which then fits only this Python and platform."""
        root = Path(self.root)
        place = root / SOURCES if version == "editable" else root / "build" / "compiled"
        made = compile_into(place, root)
        if made and version != "editable":
            build_data["force_include"] |= {str(path): str(path.relative_to(place)) for path in made}
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def compile_into(place: Path, root: Path) -> list[Path]:
    """The compiled modules below *place*, made where they are older than their source; says what could not be made."""
    made = []
    for source in sources(root):
        path = place / source.relative_to(root / SOURCES).with_name(source.stem + SUFFIX)
        if plain():
            path.unlink(missing_ok=True)
            continue
        # What was compiled before needs no compiler.
        problem = None if fresh(path, source, root) else lacking() or _compile(source, path, root)
        if problem is None:
            made.append(path)
        else:
            # The form of an older source would run in its place.
            path.unlink(missing_ok=True)
            print(f"{_name(source, root)} runs in plain Python, slower: {problem}", flush=True)
    return made


def sources(root: Path) -> list[Path]:
    """What is to be compiled."""
    below = root / SOURCES
    typed = (path for path in below.rglob("compiled.pxd") if path.with_name("plain.py").exists())
    return sorted([*below.rglob("*.pyx"), *(path for path in typed if not path.with_suffix(".pyx").exists())])


def plain() -> bool:
    """Whether this is to be plain Python by somebody's wish."""
    return os.environ.get("RATEWAY_PLAIN", "") not in ("", "0")


def lacking() -> str | None:
    """What keeps this machine from compiling, and what to do about it."""
    if _compiler() is None:
        given = os.environ.get("CC")
        if given:
            return f"CC is {given}, which is not there; set it right or unset it"
        return "there is no C compiler; apt-get install gcc libc6-dev, then install again"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        return f"{headers} has no Python.h; apt-get install {headers.name}-dev, then install again"
    if importlib.util.find_spec("Cython") is None:
        return "Cython is not installed"
    return None


def _compiler() -> list[str] | None:
    """The words that start it: CC where that is set, else what built Python, else what a system calls it."""
    given = os.environ.get("CC")
    for each in (given,) if given else (sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(each or "")
        if words and shutil.which(words[0]):
            return words
    return None


def _name(source: Path, root: Path) -> str:
    return ".".join(source.relative_to(root / SOURCES).with_suffix("").parts)


def fresh(path: Path, source: Path, root: Path) -> bool:
    """Whether *path* is younger than all that it was made from."""
    made_from = [source, *(root / SOURCES).rglob("*.pxd"), Path(__file__)]
    if source.suffix == ".pxd":
        made_from.append(source.with_name("plain.py"))
    return path.exists() and path.stat().st_mtime_ns > max(each.stat().st_mtime_ns for each in made_from)


def _compile(source: Path, path: Path, root: Path) -> str | None:
    """What went wrong, or nothing."""
    name = _name(source, root)
    compiler = _compiler()
    assert compiler is not None
    # A process that runs has the old file mapped: the new one takes its name at once and leaves that one alone.
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / f"{name}.c"
        words = _source_words(source, root, Path(folder))
        steps: tuple[list[str | Path], ...] = (
            [sys.executable, "-m", "cython", "-3", "--module-name", name, "-o", between, *words],
            [*compiler, *FLAGS, "-I", sysconfig.get_path("include"), between, "-o", new],
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for step in steps:
                done = subprocess.run(step, cwd=root, capture_output=True, text=True, check=False)
                if done.returncode:
                    new.unlink(missing_ok=True)
                    print(done.stdout + done.stderr, file=sys.stderr, flush=True)
                    return "it does not compile, see above"
            new.replace(path)
        except OSError as error:
            return str(error)
    print(f"compiled {name}", flush=True)
    return None


def _source_words(source: Path, root: Path, folder: Path) -> list[str | Path]:
    """What Cython is told to read: the ``.pyx``, or a copy of ``plain.py`` under the name of the ``.pxd`` beside it."""
    if source.suffix == ".pyx":
        return [source]
    copy = folder / source.relative_to(root / SOURCES).with_suffix(".py")
    copy.parent.mkdir(parents=True)
    for package in [each for each in copy.parents if each.is_relative_to(folder) and each != folder]:
        (package / "__init__.py").touch()
    shutil.copy(source.with_name("plain.py"), copy)
    shutil.copy(source, copy.parent)
    # Annotations are for mypy: an ``int`` of Python's has no bound, and what has one is declared in the ``.pxd``.
    return ["-X", "annotation_typing=False", copy]


def main() -> int:
    """Compile in place; 0 also when that cannot be."""
    root = Path(__file__).resolve().parent
    compile_into(root / SOURCES, root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
