"""Show the progress of a start: a bar on a terminal, lines in a log."""

from __future__ import annotations

import asyncio
import logging

from rateway.runtime.gateway import Gateway
from rateway.runtime.monitoring.health import all_live

log = logging.getLogger(__name__)

# A line of progress in a log; a live terminal is drawn again this often.
LOG_EVERY_S = 5.0
DRAW_EVERY_S = 0.25

__all__ = ["StartProgress"]


class StartProgress:
    """The start of one gateway. *live*: standard error is a terminal."""

    def __init__(self, gateway: Gateway, *, live: bool) -> None:
        self._gateway = gateway
        self._live = live

    async def run(self) -> None:
        """Show the progress until every shard is live."""
        if self._live:
            await self._draw()
        else:
            await self._write_lines()

    async def _write_lines(self) -> None:
        said = None
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            ready, total, left = now = self._progress()
            # Nothing moves while another gateway has the clusters: that is said once.
            if not total or now == said:
                continue
            said = now
            if ready == total:
                log.info("%s", all_live(total), extra={"action": "start"})
                return
            log.info(
                "%d of %d shards are live%s",
                ready,
                total,
                f", {left}" if left else "",
                extra={"action": "start"},
            )

    async def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # One line, also on a terminal of 80 columns: a log line erases no more than one.
        columns = (
            TextColumn("[bold]shards live"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            while True:
                ready, total, left = self._progress()
                bar.update(task, total=total or None, completed=ready, description=left)
                if total and ready == total:
                    break
                await asyncio.sleep(DRAW_EVERY_S)
        log.info("%s", all_live(total), extra={"action": "start"})

    def _progress(self) -> tuple[int, int, str]:
        live, total = self._gateway.progress()
        permits = self._gateway.permits
        facts = permits.facts() if permits is not None else None
        if facts is None or not facts.waiting or not facts.max_concurrency:
            return live, total, ""
        seconds = -(-facts.waiting // facts.max_concurrency) * 5.25
        return live, total, f"{facts.waiting} wait for their identify, about {_span(seconds)} left"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
