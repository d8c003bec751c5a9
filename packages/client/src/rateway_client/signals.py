"""End workers cleanly at SIGINT (Ctrl-C) and SIGTERM, unless the application handles these signals itself."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["stopped_by_signals"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

# What ends each worker that runs in this process, and the handlers that were there before the first began.
_stops: list[Callable[[], None]] = []
_before: dict[signal.Signals, Any] = {}


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* at the first SIGINT or SIGTERM; a second one acts as if this were not here.

    A signal that the application handles is left to it, and so are all outside the main thread or on an event loop
    that has no signals (Windows).
    """
    _stops.append(stop)
    if not _before and threading.current_thread() is threading.main_thread():
        _install(asyncio.get_running_loop())
    try:
        yield
    finally:
        _stops.remove(stop)
        if not _stops:
            _restore()


def _install(loop: asyncio.AbstractEventLoop) -> None:
    def stop_all() -> None:
        _restore()
        for stop in tuple(_stops):
            stop()

    for each in _SIGNALS:
        handler = signal.getsignal(each)
        if _is_default(handler):
            try:
                loop.add_signal_handler(each, stop_all)
            except NotImplementedError:
                return
            _before[each] = handler


def _restore() -> None:
    for each, handler in _before.items():
        asyncio.get_running_loop().remove_signal_handler(each)
        signal.signal(each, handler)
    _before.clear()


def _is_default(handler: Any) -> bool:
    """Return whether a signal's handler is Python's own or that of ``asyncio.run``."""
    of_asyncio = getattr(getattr(handler, "func", handler), "__module__", None) == "asyncio.runners"
    return handler in (signal.SIG_DFL, signal.default_int_handler) or of_asyncio
