"""Read a configuration for a command, and show its mistakes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from rateway import logs
from rateway.config import ConfigurationError, Settings, load

__all__ = ["add_option", "load_or_explain", "state_dir"]


def add_option(parser: argparse.ArgumentParser) -> None:
    """``-c FILE``."""
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="read settings from this TOML file")


def load_or_explain(file: Path | None) -> Settings | None:
    """Return the settings, or ``None`` after every mistake was told on standard error (as JSON lines when
    that is set).
    """
    try:
        settings = load(file, os.environ)
    except ConfigurationError as error:
        explain(error)
        return None
    logs.hide(*settings.secrets())
    return settings


def explain(error: ConfigurationError) -> None:
    """Tell every mistake: where it stands, what is wrong, what to write instead."""
    # What is broken here may be a secret in the wrong place; the loader gets them, if they can be read.
    logs.hide(*(os.environ.get(name) for name in ("DISCORD_TOKEN", "AMQP_URI", "HTTP_TOKEN", "PROXY_TOKEN")))
    if os.environ.get("LOG_FORMAT", "").strip().lower() == "json":
        handler = logs.configure("info", "json")
        log = logging.getLogger("rateway.config")
        for problem in error.problems:
            fields = {"action": "configuration", "where": problem.where, "instead": problem.instead}
            log.critical("%s", problem, extra=fields)
        logging.getLogger().removeHandler(handler)
        return
    count = len(error.problems)
    lines = [f"rateway: {count} mistake{'s' if count > 1 else ''} in the configuration, nothing was started"]
    for problem in error.problems:
        lines.append(f"  {problem.where}: {problem.wrong}")
        if problem.instead:
            lines.append(f"      → {problem.instead}")
    print("\n".join(logs.escape(logs.redact(line)) for line in lines), file=sys.stderr)


def state_dir(file: Path | None, given: Path | None) -> Path | None:
    """The state folder for a command that needs nothing else: option, else the configuration's, mistakes told."""
    if given is not None:
        return given
    if file is None and os.environ.get("STATE_DIR"):
        return Path(os.environ["STATE_DIR"]).expanduser()
    if file is None:
        from rateway.config import table

        return table.state_dir(os.environ)
    settings = load_or_explain(file)
    return None if settings is None else settings.process.state_dir
