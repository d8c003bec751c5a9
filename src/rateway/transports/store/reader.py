"""How do queries read a store? Through short read transactions, from any thread or process, beside its writer."""

from __future__ import annotations

from pathlib import Path

from rateway.transports.store.opening import StoreFault

__all__ = ["StoreReader"]


class StoreReader:
    """A store for reading. In the writer's own process take :meth:`of`, LMDB allows one opening per process."""

    @classmethod
    def open(cls, path: Path) -> StoreReader | StoreFault:
        """A store of another process of this host. One that was thrown away and made anew is noticed and followed."""
        raise NotImplementedError
