"""The fast path: a usual event from its WebSocket message to its AMQP frames in one call.

Everything about an event is decided by the conversation, the cluster and the shard's stream, in plain Python. Of a
thousand events 999 are usual, though: the next dispatch in line of a live session, in Discord's own form, of a name
that was published before. Compiled, a *lane* takes those from one end to the other by itself; whatever is unusual it
hands to the general way, with nothing done yet. So a lane decides nothing: what it would do differently from the
general way is a bug (the package's ``tests/lane`` holds the two against each other). Without the compiled form
every event takes the general way.

For that a conversation, a stream and a cluster keep what a lane needs of them in bases of their own: fields that are C
numbers when they are compiled, and slots when they are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["COMPILED", "EventPipeline", "FastPath", "PublishState", "ReceiveState", "Template", "parts"]

if TYPE_CHECKING:
    from rateway.native.fast_path.plain import (
        EventPipeline,
        FastPath,
        PublishState,
        ReceiveState,
        Template,
        parts,
    )

    COMPILED = True
else:
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
