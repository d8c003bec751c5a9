"""Pictures of the page, each of a real run: the gateway, RabbitMQ and the simulated Discord, with faults injected.

    python -m tests.browser.pictures                     docs/images/page-well.png and page-fault.png
    python -m tests.browser.pictures --all FOLDER        1, 48, 200 and 1,000 shards, well and ill, on a desktop, a
                                                         telephone and in the dark

`make pictures` does the first. Nothing on them is invented: what is wrong in a picture was done to the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rateway.demo.broker import PrivateBroker
from tests.simulator.running import fault

from tests.browser.chromium import Page, browser
from tests.browser.test_page_of_a_gateway import LIVE, VERDICT, free_port
from tests.e2e.harness import Stage, stage
from tests.rabbitmq import Broker, fresh_vhost

IMAGES = Path(__file__).parents[2] / "docs" / "images"
#: Events a second.
RATE = 400
#: How long a run goes well before its picture, seconds: the charts have something to show.
WELL_S = 100.0
#: From the first fault to the picture, seconds: a shard that is away for so long is told from those that come back.
ILL_S = 36.0
#: How long the broker has hung then: it is not missed yet, seconds.
HUNG_S = 14.0
#: As wide as documentation shows it, CSS pixels.
DESKTOP, TELEPHONE = 1180, 390


@dataclass(frozen=True, slots=True)
class Look:
    """How the page is looked at."""

    name: str
    width: int
    phone: bool = False
    dark: bool = False


LOOKS = (
    Look("desktop", DESKTOP),
    Look("telephone", TELEPHONE, phone=True),
    Look("dark", DESKTOP, dark=True),
)


@asynccontextmanager
async def seen(folder: Path, broker: Broker, shards: int) -> AsyncIterator[tuple[Stage, Page]]:
    """A gateway that is at work, and its page open."""
    port = free_port()
    async with (
        stage(
            folder, broker, shards=shards, guilds=max(40, 2 * shards), members=5, expect=frozenset({"*"}),
            PROCESSES="1" if shards == 1 else "2", HTTP_ADDRESS=f"127.0.0.1:{port}",
        ) as it,
        browser() as page,
    ):  # fmt: skip
        await it.ready()
        await page.look(width=DESKTOP)
        await page.open(f"http://127.0.0.1:{port}/")
        await page.until(f"{LIVE} === {shards}", within_s=120.0)
        it.sim.set_rate(RATE)
        yield it, page
        it.sim.set_rate(0)


async def go_well(it: Stage, page: Page, shards: int) -> None:
    """An ordinary while: some connections break and are resumed."""
    await asyncio.sleep(WELL_S * 0.6)
    for number in {min(17, shards - 1), min(18, shards - 1)}:
        await it.sim.inject(fault(f"cut:shards={number}"))
    await asyncio.sleep(WELL_S * 0.4)
    await page.until(f"{LIVE} === {shards} && {VERDICT} === 'well'", within_s=60.0)


async def go_ill(it: Stage, shards: int) -> None:
    """One shard loses its session and gets no other, the broker hangs, and other shards are on their way back."""
    away = min(5, shards - 1)
    await it.sim.inject(fault(f"no_ready:shards={away},seconds={10 * ILL_S}"))
    await it.sim.inject(fault(f"forget:shards={away}"))
    await asyncio.sleep(ILL_S - HUNG_S)
    it.broker.node.freeze()
    await asyncio.sleep(HUNG_S - 2)
    if shards > 1:
        # About a third of all, as when a zone of Discord's restarts.
        some = f"{shards // 2}-{shards // 2 + max(8, shards // 3) - 1}"
        await it.sim.inject(fault(f"no_hello:shards={some},seconds=60"))
        await it.sim.inject(fault(f"cut:shards={some}"))
    await asyncio.sleep(2)


async def photograph(page: Page, path: Path, look: Look) -> None:
    await page.look(width=look.width, height=844 if look.phone else 900, dark=look.dark, phone=look.phone)
    # Charts and tiles are drawn for this width, and what had just changed has been seen to change.
    await asyncio.sleep(1.5)
    if not look.phone:
        # As tall as the page is: what sticks to the edge of a lower screen would cover something here.
        height = await page.run("document.documentElement.scrollHeight")
        await page.look(width=look.width, height=height, dark=look.dark)
    await page.picture(path)
    print(path)


async def run(folder: Path, shards: int, looks: tuple[Look, ...], names: tuple[str, str]) -> None:
    """The two pictures of one size, in each look; *names* with ``{look}`` for its name."""
    with (
        tempfile.TemporaryDirectory(prefix="rateway-pictures-") as place,
        PrivateBroker() as node,
        fresh_vhost(node) as broker,
    ):
        async with seen(Path(place), broker, shards) as (it, page):
            await go_well(it, page, shards)
            for look in looks:
                await photograph(page, folder / names[0].format(look=look.name), look)
            try:
                await go_ill(it, shards)
                await page.look(width=DESKTOP)
                await page.run(
                    f"document.querySelector('#clusters [data-shard=\"{min(5, shards - 1)}\"]').click()"
                )
                for look in looks:
                    if look.phone:
                        # There the story covers half of the screen.
                        await page.run("document.querySelector('#story .close').click()")
                    await photograph(page, folder / names[1].format(look=look.name), look)
            finally:
                node.thaw()
            assert page.said == [], page.said


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every size and look, into this folder")
    parser.add_argument(
        "--shards", type=int, nargs="*", default=[1, 48, 200, 1000], help="with --all: these sizes"
    )
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.all is None:
            asyncio.run(run(IMAGES, 48, LOOKS[:1], ("page-well.png", "page-fault.png")))
            return
        for shards in options.shards:
            names = (f"{shards}-well-{{look}}.png", f"{shards}-ill-{{look}}.png")
            asyncio.run(run(options.all, shards, LOOKS, names))


if __name__ == "__main__":
    main()
