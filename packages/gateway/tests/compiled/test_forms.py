"""Compiled where this machine can, and the same in plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pathlib import Path

import hatch_build
import pytest
from rateway.native import form

ROOT = Path(__file__).parents[4]
PACKAGE = ROOT / "packages/gateway"
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
# Runs the tests named by the arguments in plain Python, and only then.
PLAIN_TESTS = """
import sys, pytest
from rateway.native.form import form
assert form() == "plain Python"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def there() -> bool:
    """Whether all that can be compiled was, from the sources as they are now."""
    return all(
        hatch_build.fresh(source.with_name(source.stem + SUFFIX), source, PACKAGE)
        for source in hatch_build.sources(PACKAGE)
    )


def test_what_can_be_compiled_here_is_there_and_in_use() -> None:
    """Fails? `make install`, and look at what it says."""
    if hatch_build.plain():
        assert form.form() == "plain Python"
        return
    names = [
        ".".join(source.relative_to(PACKAGE / "src").with_suffix("").parts)
        for source in hatch_build.sources(PACKAGE)
    ]
    assert names == list(form.COMPILED)
    assert there() or hatch_build.lacking()
    assert form.form() == ("compiled" if there() else "plain Python")
    for name in names:
        spec = find_spec(name)
        assert isinstance(spec and spec.loader, ExtensionFileLoader) is there()


CACHE = "packages/gateway/tests/cache"
RUNTIME = "packages/gateway/tests/runtime"


@pytest.mark.parametrize(
    "tests",
    [
        # What is said about both forms by one test needs no second run.
        [
            CACHE,
            *(f"--ignore={CACHE}/{each}.py" for each in ("test_hot", "test_odd_events", "test_properties")),
        ],
        [f"{CACHE}/test_odd_events.py", f"{CACHE}/test_properties.py"],
        [
            "packages/gateway/tests/delivery",
            "packages/gateway/tests/fast_path",
            "packages/gateway/tests/frames",
            "packages/gateway/tests/session",
            "packages/gateway/tests/transports/test_websocket.py",
            "packages/gateway/tests/transports/test_websocket_hostile.py",
        ],
        [
            RUNTIME,
            # Queries and commands from a broker, processes, permits, dialling: nothing of that is compiled.
            "--ignore-glob=*/test_inbound_*.py",
            *(f"--ignore={RUNTIME}/{each}" for each in ("fleet", "identify", "supervisor")),
            f"--ignore={RUNTIME}/test_proxy_child.py",
            f"--ignore={RUNTIME}/runner/test_dialer.py",
            "packages/gateway/tests/transports/test_store.py",
        ],
        [
            "packages/gateway/tests/transports/amqp/test_publisher.py",
            "tests/e2e/test_gateway.py::test_a_broker_that_restarts_loses_nothing",
        ],
    ],
    ids=["cache", "odd", "shards", "runtime", "whole"],
)
def test_whatever_has_a_compiled_form_passes_its_tests_in_plain_python_too(tests: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_TESTS, *tests],
        cwd=ROOT,
        env=os.environ | {"RATEWAY_PLAIN": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize(("wish", "plain"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_wish_for_plain_python_is_heeded(wish: str, plain: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rateway", "--version"],
        env=os.environ | {"RATEWAY_PLAIN": wish},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(" (compiled)\n" if there() and not plain else " (plain Python)\n")


def test_with_the_wish_for_plain_python_no_compiled_module_is_loaded() -> None:
    program = (
        "import sys, rateway.runtime.runner.shard, rateway.cache.apply\n"
        f"print([name for name in {form.COMPILED!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"RATEWAY_PLAIN": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
