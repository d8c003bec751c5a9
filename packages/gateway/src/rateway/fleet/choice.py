"""Choose the number of shards of a start: the stored layout holds while its sessions can be resumed.

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
    """The address for identifies, as REST gave it when the layout was chosen; a restart then needs no
    answer from REST.
    """
    refused: int = 0
    """A total that Discord refused (4010, 4011): it is not tried again. 0: none."""


class Choice(msgspec.Struct, frozen=True):
    layout: Layout
    gateway_url: str
    words: str
    """The reason for this number of shards, for the log."""
    refused: int = 0
    """See StoredLayout."""


def keep_stored(
    stored: StoredLayout | None, *, resumable: int, reshard: bool, shards: int | None, per_cluster: int
) -> Choice | str:
    """Return the stored layout if it holds, else why not (empty when there is none)."""
    if stored is None:
        return ""
    if stored.refused == stored.shards:
        return f"Discord refuses the stored {stored.shards} shards; their {resumable} sessions are given up"
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
    words = f"{resumable} of {stored.shards} stored sessions are resumed"
    return Choice(layout, stored.gateway_url, words, stored.refused)


def take_recommended(
    *, shards: int | None, recommended: int, extra: int, per_cluster: int, gateway_url: str, refused: int = 0
) -> Choice:
    """Return ``SHARDS`` if given, else what Discord recommends and the extra ones on top.

    *refused* is a total that Discord has refused. Of a very large bot it demands a multiple of its own number, and it
    takes no total that leaves more than 2,500 guilds to a shard. So where the sum is no larger than what was refused,
    the next larger multiple of the recommendation takes its place.
    """
    if shards is not None:
        return Choice(Layout(shards, per_cluster), gateway_url, f"{shards} shards, as SHARDS says", refused)
    total = recommended + extra
    words = f"{total} shards: Discord recommends {recommended}, and {extra} extra"
    if total <= refused:
        total = (refused // recommended + 1) * recommended
        words = (
            f"{total} shards: Discord refused {refused}, so the next multiple of the {recommended} that it recommends "
            f"is taken in place of {recommended} + {extra} extra"
        )
    return Choice(Layout(total, per_cluster), gateway_url, words, refused)
