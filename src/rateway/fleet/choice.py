"""How many shards does this start run? What is stored holds while its sessions can be resumed.

Changing the number of shards costs one identify for each and every session that could have been resumed, so a new
recommendation of Discord's alone never does it (docs/delivery.md, "The layout holds").
"""

from __future__ import annotations

import msgspec

from rateway.fleet.layout import Layout

__all__ = ["Choice", "StoredLayout", "keep_stored", "take_recommended"]


class StoredLayout(msgspec.Struct, frozen=True):
    """The layout of the last start, as it stands in the state folder."""

    shards: int
    per_cluster: int
    gateway_url: str
    """Where identifies go; asked from REST then, so that a restart needs no answer from REST."""


class Choice(msgspec.Struct, frozen=True):
    layout: Layout
    gateway_url: str
    words: str
    """Why this number, for the log."""


def keep_stored(
    stored: StoredLayout | None, *, resumable: int, reshard: bool, shards: int | None, per_cluster: int
) -> Choice | str:
    """The stored layout if it holds, else why not (empty when there is none)."""
    if stored is None:
        return ""
    if reshard:
        return (
            f"RESHARD is set: the stored {stored.shards} shards and their {resumable} sessions are given up"
        )
    if shards is not None and shards != stored.shards:
        return (
            f"SHARDS={shards} replaces the stored {stored.shards} shards; {resumable} sessions are given up"
        )
    if per_cluster != stored.per_cluster:
        return (
            f"{per_cluster} shards a cluster replace the stored {stored.per_cluster}; "
            f"{resumable} sessions are given up"
        )
    if resumable == 0:
        return "no stored session can be resumed"
    layout = Layout(stored.shards, stored.per_cluster)
    return Choice(layout, stored.gateway_url, f"{resumable} of {stored.shards} stored sessions are resumed")


def take_recommended(
    *, shards: int | None, recommended: int, extra: int, per_cluster: int, gateway_url: str
) -> Choice:
    """``SHARDS`` if given, else what Discord recommends and the extra ones on top."""
    if shards is not None:
        return Choice(Layout(shards, per_cluster), gateway_url, f"{shards} shards, as SHARDS says")
    total = recommended + extra
    return Choice(
        Layout(total, per_cluster),
        gateway_url,
        f"{total} shards: Discord recommends {recommended}, and {extra} extra",
    )
