"""What the state folder remembers of a cluster's latest tenure in a fleet."""

from __future__ import annotations

import logging

import msgspec
from rateway.fleet.cluster_record import LastTenure
from rateway.transports.state import StateDir, StateError

__all__ = ["TenureNotes"]

log = logging.getLogger(__name__)


class TenureNotes:
    """One cluster's note, a file of its own."""

    def __init__(self, state: StateDir, cluster: int) -> None:
        self._state = state
        self._cluster = cluster
        self._name = f"tenure-{cluster}.json"

    def read(self) -> LastTenure | None:
        """Return the latest tenure; None without one that can be read."""
        try:
            data = self._state.read(self._name)
            return None if not data else msgspec.json.decode(data, type=LastTenure)
        except (StateError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def write(self, last: LastTenure) -> None:
        """Note a tenure. Where that fails, the next tenure here takes the fleet's record, which is no loss."""
        try:
            self._state.write(self._name, msgspec.json.encode(last))
        except StateError as error:
            log.warning("%s", error, extra={"cluster": self._cluster, "action": "tenure"})
