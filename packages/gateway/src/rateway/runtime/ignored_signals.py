"""Signals that would end the process and mean nothing to the gateway: they end nothing, and each is said once."""

from __future__ import annotations

import asyncio
import logging
import signal

from rateway.hardening import ENDING

__all__ = ["say_ignored_signals"]

log = logging.getLogger(__name__)


def say_ignored_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop log the first of each of :data:`rateway.hardening.ENDING`. In the main thread."""
    said: set[int] = set()

    def say(number: int) -> None:
        if number not in said:
            said.add(number)
            log.warning(
                "the signal %s is ignored: it means nothing to the gateway (SIGTERM stops it, SIGHUP has it read its "
                "settings again)",
                _name(number),
                extra={"action": "signal"},
            )

    for number in sorted(ENDING):
        loop.add_signal_handler(number, say, number)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
