"""What the projects below packages/ declare, and what their sources import."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "client", "simulator", "gateway")


def canonical(name: str) -> str:
    """Return the name of a distribution as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that these requirements name."""
    return {canonical(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in requirements}


@dataclass(frozen=True, slots=True)
class Project:
    """One package of the workspace, by its folder."""

    folder: Path

    @property
    def declared(self) -> dict[str, Any]:
        """The table `project` of its pyproject.toml."""
        found: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        return found

    @property
    def name(self) -> str:
        return str(self.declared["name"])

    @property
    def dependencies(self) -> set[str]:
        return names(self.declared["dependencies"])

    @property
    def extras(self) -> set[str]:
        return names(
            [each for extra in self.declared.get("optional-dependencies", {}).values() for each in extra]
        )

    @property
    def source(self) -> Path:
        """The folder of its import package."""
        (found,) = [each for each in (self.folder / "src").iterdir() if (each / "__init__.py").exists()]
        return found

    @property
    def version(self) -> str:
        """What its sources say."""
        for node in ast.parse((self.source / "__init__.py").read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
                return str(ast.literal_eval(node.value))
        raise AssertionError(f"{self.source} has no __version__")


# Of the standard library from 3.14 on, imported there only.
NEWER = frozenset({"compression"})


def projects() -> list[Project]:
    return [Project(ROOT / "packages" / name) for name in PACKAGES]


def imported(source: str) -> Iterator[str]:
    """Yield the modules that Python or Cython source imports from outside of its own package, in full."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # A namespace belongs to several distributions: `from backports import zstd` is of backports.zstd.
            yield from (f"{node.module}.{each.name}" for each in node.names)


def imported_by_cython(source: str) -> Iterator[str]:
    """Yield the modules that a .pyx imports: it is no Python, and its imports stand at the beginning of a line."""
    for found in re.finditer(r"^\s*(?:from ([\w.]+) import|import ([\w.]+))", source, re.MULTILINE):
        yield found[1] or found[2]


def distributions(project: Project) -> dict[str, set[str]]:
    """Return the distributions that a package's sources import, each with the modules that do."""
    owners = metadata.packages_distributions()
    found: dict[str, set[str]] = {}
    for path in sorted(project.source.rglob("*.py*")):
        if path.suffix not in (".py", ".pyx"):
            continue
        reads = imported if path.suffix == ".py" else imported_by_cython
        for module in reads(path.read_text()):
            top = module.split(".")[0]
            if (
                top in sys.stdlib_module_names
                or top in NEWER
                or top == project.source.name
                or top in ("libc", "cpython", "cython")
            ):
                continue
            name = ".".join(module.split(".")[:2]) if top == "backports" else owners.get(top, [top])[0]
            found.setdefault(canonical(name), set()).add(path.relative_to(ROOT).as_posix())
    return found
