"""The metrics of a gateway proxy: one row each, shown by the gateway for the proxy that it starts, and by every proxy.

All numbers are read from a :class:`ProxyStatus`. Labels have small known sets of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from rateway.transports.proxy_line import ProxyStatus

__all__ = ["PROXY_METRICS", "ProxyMetric", "Samples", "render"]

BOT_STATES: Final = ("unidentified", "starting", "resuming", "live")
# Why a connection is refused or ended, and what becomes of a request of REST.
TURNED_AWAY: Final = ("full", "silent", "unread", "slow", "fault", "refused")
REST: Final = ("passed", "answered", "refused", "failed")

Samples = Iterable[tuple[str, float]]
"""Values, each with that of the metric's label; an empty text where it has none."""


@dataclass(frozen=True, slots=True)
class ProxyMetric:
    """One metric. ``name`` is without ``rateway_proxy_``; ``label`` is empty where it has none."""

    name: str
    label: str
    help: str
    samples: Callable[[ProxyStatus], Samples]

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """As Prometheus names it."""
        return "counter" if self.name.endswith("_total") else "gauge"


def _one(value: float) -> Samples:
    return [("", value)]


PROXY_METRICS: Final = (
    ProxyMetric("connections", "state", "Connections of bots to it, by state.",
        lambda status: [(state, status.states.get(state, 0)) for state in BOT_STATES]),
    ProxyMetric("lag_events", "", "Entries of the event logs that RESUMEs of bots have still to bring.",
        lambda status: _one(sum(bot.lag_events for bot in status.bots))),
    ProxyMetric("lag_seconds", "", "Seconds of events that the RESUME which is farthest behind has still to bring.",
        lambda status: _one(max((bot.lag_s for bot in status.bots), default=0))),
    ProxyMetric("identifies_total", "", "IDENTIFYs of bots that were answered with READY.",
        lambda status: _one(status.identifies)),
    ProxyMetric("resumes_total", "", "RESUMEs of bots that were answered with RESUMED.",
        lambda status: _one(status.resumes)),
    ProxyMetric("resumes_refused_total", "", "RESUMEs of bots that were answered with op 9.",
        lambda status: _one(status.refused)),
    ProxyMetric("sent_total", "", "Events sent to bots.", lambda status: _one(status.sent)),
    ProxyMetric("replayed_total", "", "Of these, events that a bot had missed.",
        lambda status: _one(status.replayed)),
    # The proxy's own codes: a small set.
    ProxyMetric("closes_total", "code", "Connections of bots that the proxy closed, by close code.",
        lambda status: sorted(status.closes.items())),
    ProxyMetric("turned_away_total", "reason", "Connections to it that were refused or ended, by reason.",
        lambda status: [(reason, status.turned_away.get(reason, 0)) for reason in TURNED_AWAY]),
    ProxyMetric("rest_total", "outcome", "Requests of REST: `passed` on, `answered`, `refused` (401), `failed`.",
        lambda status: [(outcome, status.rest.get(outcome, 0)) for outcome in REST]),
    ProxyMetric("cpu_seconds_total", "", "CPU seconds of the proxy.", lambda status: _one(status.cpu_s)),
    ProxyMetric("memory_bytes", "", "Resident memory of the proxy.", lambda status: _one(status.memory_bytes)),
)  # fmt: skip


def render(status: ProxyStatus) -> str:
    """Return what Prometheus reads of one proxy, in its text format."""
    lines = []
    for metric in PROXY_METRICS:
        name = f"rateway_proxy_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for value_of_label, value in metric.samples(status):
            label = f'{{{metric.label}="{value_of_label}"}}' if metric.label else ""
            lines.append(f"{name}{label} {float(value)!r}")
    return "\n".join(lines) + "\n"
