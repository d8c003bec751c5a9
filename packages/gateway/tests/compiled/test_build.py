"""A module with a compiled form is compiled where that is possible, and an installation succeeds where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import hatch_build
import pytest

ROOT = Path(__file__).parents[4]
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
PROJECT = """
[build-system]
requires = ["hatchling", "Cython"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
requires-python = ">=3.11"
[tool.hatch.build.targets.wheel]
packages = ["src/small"]
[tool.hatch.build.targets.wheel.hooks.custom]
"""
NATIVE = "def twice(long n):\n    return 2 * n\n"
EDITABLE = "import hatchling.build; hatchling.build.build_editable('dist')"
COMPILES = hatch_build.lacking() is None


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of a few lines that is built as this one is."""
    package = tmp_path / "project" / "src" / "small"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "native.pyx").write_text(NATIVE)
    (package / "other.pyx").write_text("def thrice(long n):\n    return 3 * n\n")
    root = package.parents[1]
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "dist").mkdir()
    shutil.copy(ROOT / "packages/gateway/hatch_build.py", root)
    shutil.copy(ROOT / ".gitignore", root)
    return root


def run(root: Path, *words: str, **environ: str) -> str:
    """What Python said when it was called with these words; it must not fail."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=os.environ | {"RATEWAY_PLAIN": ""} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def compiled(root: Path) -> set[str]:
    """Modules that have a compiled form beside their sources."""
    return {path.name.removesuffix(SUFFIX) for path in (root / "src" / "small").glob(f"*{SUFFIX}")}


def wheel(root: Path) -> zipfile.ZipFile:
    (path,) = (root / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_a_wheel_carries_what_was_compiled_and_the_tag_of_its_platform(small: Path, tmp_path: Path) -> None:
    said = run(small, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist")
    with wheel(small) as made:
        names = set(made.namelist())
        made.extractall(tmp_path / "site")
    assert {"small/__init__.py", "small/native.pyx", "small/other.pyx"} <= names
    assert {f"small/native{SUFFIX}", f"small/other{SUFFIX}"} <= names or not COMPILES, said
    assert ("-py3-none-any" in str(made.filename)) is not COMPILES
    assert compiled(small) == set()
    if COMPILES:
        program = "from small import native, other; print(native.twice(4), other.thrice(4), other.__file__)"
        twice, thrice, file = run(tmp_path / "site", "-c", program).split()
        assert (twice, thrice) == ("8", "12") and file.endswith(SUFFIX)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"CC": "/nonexistent"}, "small.native runs in plain Python, slower: CC is /nonexistent"),
        ({"PATH": "/nonexistent"}, "small.native runs in plain Python, slower: there is no C compiler"),
        ({"RATEWAY_PLAIN": "1"}, ""),
    ],
)
def test_without_a_compiler_or_the_wish_a_wheel_is_plain_and_says_why(
    small: Path, environ: dict[str, str], line: str
) -> None:
    asked = {"CC": "", **environ}
    said = run(small, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", **asked)
    assert line in said and ("slower" in said) is bool(line)
    with wheel(small) as made:
        assert str(made.filename).endswith("-py3-none-any.whl")
        assert "small/native.pyx" in made.namelist()
        assert not [name for name in made.namelist() if name.endswith(".so")]


def test_an_editable_installation_is_compiled_in_place(small: Path) -> None:
    run(small, "-c", EDITABLE)
    assert compiled(small) == ({"native", "other"} if COMPILES else set())


def test_only_what_has_changed_is_compiled_again(small: Path) -> None:
    first = run(small, "hatch_build.py")
    again = run(small, "hatch_build.py", CC="/nonexistent")
    (small / "src/small/native.pyx").write_text(NATIVE.replace("2", "4"))
    changed = run(small, "hatch_build.py")
    if not COMPILES:
        assert first == changed and "runs in plain Python" in again
        return
    assert (first, again) == ("compiled small.native\ncompiled small.other\n", "")
    assert changed == "compiled small.native\n"
    assert run(small / "src", "-c", "from small import native; print(native.twice(4))") == "16\n"


def test_plain_python_beside_a_pxd_is_compiled_with_its_types(small: Path) -> None:
    folder = small / "src/small/typed"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "plain.py").write_text(
        "class Pair:\n    def __init__(self, left: int) -> None:\n        self.left = left\n"
    )
    (folder / "compiled.pxd").write_text("cdef class Pair:\n    cdef public int left\n")
    said = run(small, "hatch_build.py")
    if not COMPILES:
        assert "small.typed.compiled runs in plain Python" in said
        return
    assert "compiled small.typed.compiled\n" in said
    program = """
from small.typed import compiled, plain
assert plain.Pair("text").left == "text" and compiled.Pair(3).left == 3
try:
    compiled.Pair("text")
except TypeError:
    print("typed")
"""
    assert run(small / "src", "-c", program) == "typed\n"
    assert run(small, "hatch_build.py") == ""
    (folder / "plain.py").write_text((folder / "plain.py").read_text() + "\n")
    assert run(small, "hatch_build.py") == "compiled small.typed.compiled\n"


def test_what_does_not_compile_is_said_and_leaves_no_older_form_behind(small: Path) -> None:
    run(small, "hatch_build.py")
    (small / "src/small/native.pyx").write_text("def (\n")
    said = run(small, "hatch_build.py")
    assert "small.native runs in plain Python, slower: " in said
    assert ("it does not compile, see above" in said and "native.pyx:1" in said) or not COMPILES
    assert compiled(small) == ({"other"} if COMPILES else set())


def test_missing_headers_are_named_with_the_package_that_brings_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python3.99"))
    reason = hatch_build.lacking()
    assert reason is not None and "Python.h" in reason and "apt-get install python3.99-dev" in reason
