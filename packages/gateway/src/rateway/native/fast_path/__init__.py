"""The fast path: a usual event from its WebSocket message to the run in which it is published, in one call.

Everything about an event is decided by the conversation, the cluster and the shard's stream, in plain Python. Of a
thousand events 999 are usual, though: the next dispatch in line of a live session, in Discord's own form, of a name
that was published before. Compiled, the fast path takes those from one end to the other by itself; whatever is unusual
it hands to the general path, with nothing done yet. So it decides nothing: what it would do differently from the
general path is a bug (the package's ``tests/fast_path`` holds the two against each other). Without the compiled form
every event takes the general path.

A connection holds its :class:`FastPath` and tells it three partners, each held by what it is a part of: the
conversation's :class:`ReceiveState`, the stream's :class:`PublishState`, the cluster's :class:`EventPipeline`. Their
fields are C numbers when they are compiled, and slots when they are not. ``compiled.pyx`` walks through all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "COMPILED", "EventPipeline", "FastPath", "GeneralPath", "PublishState", "ReceiveState", "Template", "parts",
]  # fmt: skip

if TYPE_CHECKING:
    from rateway.native.fast_path.plain import (
        EventPipeline,
        FastPath,
        GeneralPath,
        PublishState,
        ReceiveState,
        Template,
        parts,
    )

    COMPILED = True
else:
    from rateway.native.fast_path.plain import GeneralPath
    from rateway.native.form import is_plain_wanted
    from rateway_protocol.discord import delimit

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.fast_path.compiled import (
            EventPipeline,
            FastPath,
            PublishState,
            ReceiveState,
            Template,
            parts,
            value_end,
        )

        delimit.use(value_end)
        COMPILED = True
    except ImportError:
        from rateway.native.fast_path.plain import (
            EventPipeline,
            FastPath,
            PublishState,
            ReceiveState,
            Template,
            parts,
        )

        COMPILED = False
