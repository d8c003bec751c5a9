"""Make environments, or take libraries through their journey: `python -m tests.world [--prepare] [NAME …]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict

import msgspec

from tests.world.journey import travel
from tests.world.libraries import LIBRARIES
from tests.world.toolchains import NotPrepared, ToolMissing, prepare


def main() -> int:
    """The command; 1 when a library failed or could not be prepared."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="only make the environments")
    parser.add_argument("names", nargs="*", metavar="NAME", help="libraries (default: all)")
    options = parser.parse_args()
    known = {library.name: library for library in LIBRARIES}
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    failed = 0
    for name in options.names or known:
        library = known[name]
        try:
            folder = prepare(library.folder, library.toolchain)
        except ToolMissing as missing:
            print(f"{name}: skipped, {missing} is missing", file=sys.stderr)
            continue
        except NotPrepared as problem:
            print(problem, file=sys.stderr)
            failed = 1
            continue
        if options.prepare:
            continue
        outcome = asyncio.run(travel(library, folder))
        print(msgspec.json.format(msgspec.json.encode(asdict(outcome))).decode(), flush=True)
        failed |= bool(outcome.failure or outcome.foreign(library))
    return failed


if __name__ == "__main__":
    sys.exit(main())
