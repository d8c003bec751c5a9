"""Hold a cluster's shards back while another member of the fleet may own the cluster (``fleet/dial_right.py``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rateway.fleet.dial_right import DialRight
from rateway.fleet.port import has_right
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.identify.permits import IdentifyPermits, Refusal

__all__ = ["DialGate", "FencedPermits"]

# Between two looks at whether the right is back: the election renews its record by itself, and tells nobody.
_LOOK_S = 0.25
# A permit that came too late is asked for again after so long.
_PAUSE_S = 1.0

log = logging.getLogger(__name__)


class DialGate:
    """One cluster's, over all of its tenures in this process."""

    def __init__(
        self,
        number: int,
        confirmed_at: Callable[[], float | None],
        clock: Callable[[], float],
        silent_s: Callable[[], float | None],
    ) -> None:
        """*confirmed_at* and *clock* are those of the election; *silent_s*: for how many seconds the cluster's live
        shards have heard nothing of Discord, None without any.
        """
        self._silent_s = silent_s
        self._number = number
        self._confirmed_at = confirmed_at
        self._clock = clock
        self._right = DialRight()
        self._is_said = False

    @property
    def has_right(self) -> bool:
        """Whether a shard may identify now, and resume freely."""
        return has_right(self._confirmed_at(), self._clock())

    async def dial(self, shard_id: int, *, resuming: bool, asked: bool) -> None:
        """Wait until a shard may dial. *asked*: its connection before was given up because somebody asked for it."""
        while True:
            now = self._clock()
            at = self._right.dial_at(
                shard_id,
                resuming=resuming,
                asked=asked,
                silent_s=self._silent_s(),
                confirmed_at=self._confirmed_at(),
                now=now,
            )
            if at is not None and at <= now:
                self._right.dialled(shard_id, now)
                self._is_said = self._is_said and not self.has_right
                return
            self._say()
            await asyncio.sleep(_LOOK_S)

    def may_open(self, shard_id: int) -> bool:
        """Return whether a shard may use the connection that it has dialled: it may have taken long to open."""
        return self._right.may_open(shard_id, confirmed_at=self._confirmed_at(), now=self._clock())

    def resumed(self, shard_id: int) -> None:
        """Note that a shard's session has been resumed."""
        self._right.resumed(shard_id, self._clock())

    async def identify(self) -> None:
        """Wait until a shard may identify."""
        while not self.has_right:
            self._say()
            await asyncio.sleep(_LOOK_S)
        self._is_said = False

    def _say(self) -> None:
        if not self._is_said:
            self._is_said = True
            log.warning(
                "the fleet's record of this cluster is not confirmed: until it is, or another gateway owns the "
                "cluster, its shards resume once a minute and do not identify. Is the broker away?",
                extra={"cluster": self._number, "action": "tenure"},
            )


class FencedPermits:
    """Identify permits that an owner gets only while it has the right to identify."""

    def __init__(self, permits: IdentifyPermits, gate: DialGate) -> None:
        self._permits = permits
        self._gate = gate

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """Wait for the right, then for a permit."""
        await self._gate.identify()
        return await self._permits.acquire(shard_id, lost=lost)

    async def spent(self, shard_id: int) -> Refusal | None:
        """Write the identify down, unless the right has ended meanwhile; also not when it ends during that."""
        refusal = await self._permits.spent(shard_id) if self._gate.has_right else None
        if refusal is None and not self._gate.has_right:
            until = asyncio.get_running_loop().time() + _PAUSE_S
            return Refusal("right", until, "another gateway may own the cluster")
        return refusal

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """Pass the outcome on."""
        self._permits.finished(shard_id, outcome)
