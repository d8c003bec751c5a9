"""Read the deliveries of an event log: from AMQP frames to entries, a whole read of the socket in one call.

A reader of a log does nothing else for an entry that no bot receives, and as much again as for all else of one that a
bot does: hence the compiled form. ``plain.py`` says what it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["EntryParser"]

if TYPE_CHECKING:
    from rateway.native.log_entries.plain import EntryParser
else:
    from rateway.native.form import is_plain_wanted

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.log_entries.compiled import EntryParser
    except ImportError:
        from rateway.native.log_entries.plain import EntryParser
