"""The page in a real browser, over a gateway that a test moves by hand."""

from __future__ import annotations

import time

from rateway.runtime.monitoring.http_views import HttpViews
from rateway.runtime.monitoring.status import BudgetStatus
from tests.http.fleet import Fleet, served
from tests.http.several import HOSTILE, MINE, OTHER, a_fleet

from tests.aio import run
from tests.browser.chromium import Page, browser

TILES = "document.querySelectorAll('#clusters .tile{}').length"
VERDICT = "document.querySelector('#verdict').className"
AWAY = {
    "connected": False,
    "why": "connection refused",
    "lag_s": 41.0,
    "unconfirmed": 3391,
    "spool_events": 1200,
}


def tile(shard: int) -> str:
    return f"document.querySelector('#clusters [data-shard=\"{shard}\"]')"


async def opened(page: Page, port: int, *, tiles: int) -> None:
    await page.open(f"http://127.0.0.1:{port}/")
    await page.until(f"{TILES.format('')} === {tiles}")


def test_states_change_while_one_looks() -> None:
    async def scene() -> None:
        fleet = Fleet(24)
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=24)
            assert await page.run(TILES.format(".live")) == 24
            assert await page.run(VERDICT) == "well"
            for shard in (3, 11):
                fleet.shards[shard] = {"state": "resuming", "away_s": 1.0, "since_s": 1.0}
            await page.until(f"{TILES.format('.resuming')} === 2")
            assert await page.run(VERDICT) == "notice"
            assert await page.run(f"{tile(3)}.getAttribute('aria-label')") == "shard 3, resuming"
            assert "2 shards (3, 11): resuming" in await page.run(
                "document.querySelector('#reasons').innerText"
            )
            assert "!" in await page.run("document.title")
            fleet.shards = {}
            await page.until(f"{TILES.format('.live')} === 24 && {VERDICT} === 'well'")
            told = await page.run("document.querySelector('#happenings').innerText")
            assert "2 shards 3, 11" in told and "all 24 shards are live" in told
            assert page.said == []

    run(scene())


def test_a_broker_outage_is_seen_and_its_end_too() -> None:
    async def scene() -> None:
        fleet = Fleet(24)
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=24)
            fleet.publishers[2] = AWAY
            await page.until(f"{VERDICT} === 'trouble'")
            assert (
                await page.run("document.querySelector('#verdict-words').innerText")
                == "The broker is away for 1 of 3 clusters."
            )
            flags = await page.run("[...document.querySelectorAll('.flag')].map((flag) => flag.innerText)")
            assert flags == ["", "⚠ broker away, 1.2K spooled", ""]
            fleet.publishers = {}
            await page.until(f"{VERDICT} === 'well'")
            assert "the broker is back" in await page.run("document.querySelector('#happenings').innerText")

    run(scene())


def test_shards_of_a_process_that_does_not_answer_stay_in_sight() -> None:
    async def scene() -> None:
        fleet = Fleet(32)
        fleet.processes = 2
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=32)
            fleet.silent = frozenset({2})
            await page.until(f"{TILES.format('.silent')} === 16")
            assert (
                await page.run("document.querySelector('#verdict-words').innerText")
                == "Runner 2 does not answer."
            )
            assert (
                await page.run(f"{tile(31)}.getAttribute('aria-label')")
                == "shard 31, no word from its process"
            )
            fleet.silent = frozenset()
            await page.until(f"{TILES.format('.live')} === 32 && {VERDICT} === 'well'")

    run(scene())


def test_bots_behind_the_proxy_are_shown_with_what_they_have_still_to_get() -> None:
    async def scene() -> None:
        fleet = Fleet(8)
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=8)
            words = "document.querySelector('#bots-words').innerText"
            assert "2 connected to 127.0.0.1:7878" in await page.run(words)
            rows = "[...document.querySelectorAll('#bots tbody tr')].map((row) => row.innerText)"
            first, second = await page.run(rows)
            assert first.split("\t")[:3] == ["discord.py", "0 of 2", "live"]
            assert second.split("\t")[:3] == ["hikari", "1 of 2", "resuming"] and "812 events, 14 s" in second
            fleet.proxy = None
            await page.until(f"{words} === 'The proxy is down.'")
            fleet.wants_proxy = False
            await page.until("document.querySelector('#bots-section').hidden")

    run(scene())


def test_members_of_a_fleet_are_shown_with_what_they_own() -> None:
    async def scene() -> None:
        fleet = Fleet(24)
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=24)
            assert await page.run("document.querySelector('#fleet-section').hidden")
            fleet.more = {"fleet": a_fleet(how=HOSTILE)}
            await page.until("!document.querySelector('#fleet-section').hidden")
            words = await page.run("document.querySelector('#fleet-words').innerText")
            governor = f"The governor is {MINE} (epoch 3)"
            assert words == f"bot: this is {MINE}. {governor}; layout 1; no member owns cluster 3."
            rows = "[...document.querySelectorAll('#fleet tbody tr')].map((row) => row.innerText.split('\t'))"
            first, second = await page.run(rows)
            assert first[:3] == [f"{MINE} (this)", "0.4.0", ""] and first[3:6] == ["1", "8 of 8", "4"]
            assert first[6] == f"[red]\\e[2Jb from {OTHER}, 1 min 2 s ago" and first[7] == "2 s"
            assert second[2:6] == ["leaves", "2", "7 of 8", "7"] and second[7] == "none"
            # A cluster that another member has now leaves the grid.
            kept = (await fleet.status()).clusters[:2]
            fleet.more = {"clusters": kept, "shards": (await fleet.status()).shards[:16]}
            await page.until(f"{TILES.format('.live')} === 16")
            assert await page.run("document.querySelectorAll('.cluster').length") == 2

    run(scene())


def test_a_start_shows_how_far_it_is() -> None:
    async def scene() -> None:
        fleet = Fleet(64)
        new = {"session": None, "identifies": 0, "away_s": 9.0}
        fleet.shards = {shard: {"state": "waiting_permit", **new} for shard in range(20, 64)}
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=64)
            assert await page.run(VERDICT) == "starting"
            assert await page.run("document.querySelector('progress').value") == 20
            words = await page.run("document.querySelector('#progress p').innerText")
            assert words == "20 of 64 shards live, about 16 s left: Discord lets 16 identify every 5 s"

    run(scene())


def test_a_gateway_that_goes_away_is_said_and_it_is_found_again() -> None:
    async def scene() -> None:
        fleet = Fleet(8)
        async with browser() as page:
            async with served(fleet) as (port, _):
                await opened(page, port, tiles=8)
            await page.until(f"{VERDICT} === 'trouble'")
            words = await page.run("document.querySelector('#verdict-words').innerText")
            assert words.startswith("No word from the gateway since ")
            async with served(fleet, port=port):
                await page.until(f"{VERDICT} === 'well'")

    run(scene())


def test_it_asks_for_the_token_once_and_streams_with_it() -> None:
    async def scene() -> None:
        fleet = Fleet(8)
        async with served(fleet, token="open-sesame") as (port, _), browser() as page:
            await page.open(f"http://127.0.0.1:{port}/")
            await page.until("document.querySelector('#door').open")
            assert await page.run(TILES.format("")) == 0
            for word, wrong in (("guess", False), ("open-sesame", True)):
                assert await page.run("document.querySelector('#door-wrong').hidden") is not wrong
                await page.run(f"document.querySelector('#door [type=password]').value = '{word}'")
                await page.run("document.querySelector('#door button').click()")
                if word == "guess":
                    await page.until("document.querySelector('#door').open")
            await page.until(f"{TILES.format('.live')} === 8")
            await opened(page, port, tiles=8)
            assert not await page.run("document.querySelector('#door').open")
            assert await page.run("localStorage.length === 0 && !document.cookie")

    run(scene())


def test_it_can_be_used_with_the_keyboard_alone() -> None:
    async def scene() -> None:
        fleet = Fleet(24)
        fleet.shards[9] = {"closes": {"4000": 2}, "last_close": "4000 Unknown error", "resumes_tried": 2}
        async with served(fleet) as (port, _), browser() as page:
            await page.look(width=1280)
            await opened(page, port, tiles=24)
            focused = "document.activeElement.dataset?.shard"
            for _ in range(8):
                await page.key("Tab")
                if await page.run(focused) == "0":
                    break
            assert await page.run(focused) == "0"
            for key, shard in (("ArrowRight", "1"), ("End", "23"), ("Home", "0"), ("ArrowLeft", "0")):
                await page.key(key)
                assert await page.run(focused) == shard
            for _ in range(9):
                await page.key("ArrowRight")
            await page.key("Enter")
            story = await page.run("document.querySelector('#story').innerText")
            assert "Shard 9" in story and "4000: Discord is not sure what went wrong" in story
            assert "0 of 2 succeeded" in story
            await page.key("Escape")
            assert await page.run("document.querySelector('#story').hidden")
            assert await page.run(focused) == "9"

    run(scene())


def test_a_screen_reader_finds_regions_names_and_news() -> None:
    async def scene() -> None:
        fleet = Fleet(16)
        fleet.shards[9] = {"state": "backing_off", "away_s": 3.0}
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=16)
            await page.call("Accessibility.enable")
            nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
            named = {
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in nodes
                if not node.get("ignored") and "role" in node
            }
            assert ("button", "shard 9, waiting to connect again") in named
            assert ("group", "cluster 2") in named
            assert {("main", ""), ("heading", "Shards"), ("heading", "Happenings")} <= named
            assert any(role == "status" for role, _ in named)
            charts = [name for role, name in named if role in ("img", "image")]
            assert len(charts) == 3 and all(":" in name for name in charts)
            nameless = [node for node in nodes if node.get("role", {}).get("value") == "button"
                        and not node.get("ignored") and not node.get("name", {}).get("value")]  # fmt: skip
            assert nameless == []

    run(scene())


def test_what_strangers_said_is_text() -> None:
    async def scene() -> None:
        script = "document.title='owned'"
        evil = f'<img src=x onerror="{script}"><script>{script}</script>\x1b]0;x\x07\u202egnp'
        fleet = Fleet(8)
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=8)
            fleet.shards[1] = {
                "state": "fatal",
                "why": evil,
                "last_close": f"4000 {evil}",
                "closes": {"4000": 1},
                "session": evil,
            }
            fleet.publishers[1] = {"connected": False, "why": evil, "unrouted": [evil]}
            fleet.clusters[1] = {"store": evil}
            await page.until(f"{TILES.format('.fatal')} === 1")
            await page.run(f"{tile(1)}.click()")
            assert await page.run("document.querySelectorAll('main img, main script').length") == 0
            assert await page.run("document.title") != "owned"
            story = await page.run("document.querySelector('#story').innerText")
            assert "<img src=x" in story
            everything = await page.run("document.body.innerText")
            assert not {"\x1b", "\x07", "\u202e"} & set(everything)
            assert page.said == []

    run(scene())


def test_a_thousand_shards_stay_smooth() -> None:
    async def scene() -> None:
        fleet = Fleet(1000)
        async with served(fleet) as (port, _), browser() as page:
            await page.look(width=1280)
            await opened(page, port, tiles=1000)
            await page.run(
                "window.gaps = []; window.before = performance.now(); "
                "requestAnimationFrame(function step(now) { gaps.push(now - before); before = now; "
                "requestAnimationFrame(step); })"
            )
            rounds = []
            for round_ in range(4):
                first = round_ * 100
                fleet.shards = {
                    shard: {"state": "resuming", "away_s": 1.0} for shard in range(first, first + 100)
                }
                await page.until(f"{tile(first + 50)}.classList.contains('resuming')")
                rounds.append(sorted(await page.run(f"gaps.splice(0).slice({int(round_ == 0)})")))
            # The best rounds tell what the page can; the others, what else the machine had to do.
            assert sum(map(len, rounds)) > 30
            usual = min(gaps[len(gaps) // 2] for gaps in rounds)
            assert usual < 200.0, "the usual frame, in milliseconds"
            longest = min(gaps[-1] for gaps in rounds)
            assert longest < 2000.0, "the longest frame: all rows of a hundred shards drawn anew"
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")
            # On a telephone a cluster is one line, and the whole of it can be scrolled through, once it is unfolded.
            await page.look(width=360, height=740, phone=True)
            await opened(page, port, tiles=1000)
            assert await page.run("document.documentElement.scrollWidth <= innerWidth")
            await page.run("document.querySelector('#unfold').click()")
            lines = "[...document.querySelectorAll('.cluster .tiles')].map((each) => each.clientHeight)"
            assert max(await page.run(lines)) < 40

    run(scene())


def test_it_fits_a_telephone_and_can_be_read_in_dark_and_light() -> None:
    contrast = """(() => {
      const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!c.endsWith(', 0)')) return c; } };
      return [...document.querySelectorAll('#clusters .tile, p, dt, dd, time, th, td, h1, h2, h3, .axis span, .flag')]
        .filter((e) => e.checkVisibility() && e.textContent).map((e) => {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
          return [(a + 0.05) / (b + 0.05), e.tagName + '.' + e.className]; }).sort((x, y) => x[0] - y[0])[0];
    })()"""
    place = (
        "(({left, right, bottom}) => [left, right, bottom])"
        "(document.querySelector('#story').getBoundingClientRect())"
    )

    async def scene() -> None:
        fleet = Fleet(24)
        states = (
            "live",
            "resuming",
            "connecting",
            "identifying",
            "waiting_permit",
            "backing_off",
            "fatal",
            "stopped",
        )
        fleet.shards = {number: {"state": state} for number, state in enumerate(states)}
        fleet.publishers[2] = AWAY
        async with served(fleet) as (port, _), browser() as page:
            for dark in (False, True):
                await page.look(width=360, height=740, phone=True, dark=dark)
                await opened(page, port, tiles=24)
                assert await page.run("document.documentElement.scrollWidth") <= 360
                worst, where = await page.run(contrast)
                assert worst >= 4.5, f"{where} ({'dark' if dark else 'light'})"
            empty = "document.querySelector('#happenings li').getBoundingClientRect().height"
            assert await page.run(empty) < 40, "what is said of no happenings stands in one line"
            for shard in (5, 20):
                await page.run(f"{tile(shard)}.click()")
                box = await page.run(place)
                assert box[0] >= 0 and box[1] <= 360 and box[2] <= 741

    run(scene())


def test_on_a_telephone_clusters_that_are_well_are_folded_and_those_in_trouble_are_not() -> None:
    shown = "[...document.querySelectorAll('.cluster')].filter((each) => each.checkVisibility()).length"
    charts = "document.querySelector('#charts').getBoundingClientRect().top"

    async def scene() -> None:
        fleet = Fleet(200)
        fleet.shards[5] = {"state": "resuming", "away_s": 1.0}
        fleet.publishers[9] = AWAY
        async with served(fleet) as (port, _), browser() as page:
            await page.look(width=390, height=844, phone=True)
            await opened(page, port, tiles=200)
            await page.until(f"{shown} === 2")
            assert await page.run(charts) < 2 * 844, "the charts are no three screens away"
            assert (
                await page.run("document.querySelector('#unfold').innerText")
                == "Show 23 clusters whose shards are live"
            )
            await page.run("document.querySelector('#unfold').click()")
            assert await page.run(shown) == 25
            # A desktop has room for all of them.
            await page.look(width=1180)
            await opened(page, port, tiles=200)
            assert await page.run(shown) == 25

    run(scene())


def test_the_one_shard_that_is_away_looks_unlike_those_that_come_back() -> None:
    look = "(({backgroundColor, borderWidth}) => backgroundColor + borderWidth)(getComputedStyle(%s))"

    async def scene() -> None:
        fleet = Fleet(80)
        fleet.shards = {shard: {"state": "backing_off", "away_s": 3.0} for shard in range(60)}
        fleet.shards[7] = {"state": "backing_off", "away_s": 45.0}
        fleet.shards[9] = {"state": "backing_off", "away_s": 500.0}
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=80)
            looks = [await page.run(look % tile(shard)) for shard in (3, 7, 9)]
            assert len(set(looks)) == 3
            labels = [await page.run(f"{tile(shard)}.getAttribute('aria-label')") for shard in (3, 7, 9)]
            assert labels == [
                "shard 3, waiting to connect again",
                "shard 7, away for long, waiting to connect again",
                "shard 9, away, waiting to connect again",
            ]
            legend = await page.run("document.querySelector('#legend').innerText")
            for words in ("1 away for long", "1 away", "58 waiting to connect again", "20 live"):
                assert words in legend
            # Time alone moves a shard from one look to the other.
            fleet.shards[3] = {"state": "backing_off", "away_s": 31.0}
            await page.until(f"{tile(3)}.classList.contains('late')")

    run(scene())


def test_a_chart_says_its_values_where_the_pointer_is_and_breaks_where_nothing_was_measured() -> None:
    heartbeat = "document.querySelectorAll('#charts figure')[2]"
    hint = f"{heartbeat}.querySelector('.hint')"

    async def before(views: HttpViews, fleet: Fleet) -> None:
        now, wall = time.monotonic() - 600, time.time() - 600
        for step in range(120):
            none = 40 <= step < 60
            fleet.shards = {shard: {"latency_ms": None if none else 40.0} for shard in range(8)}
            views.history.take(await fleet.status(), now + 5 * step, wall + 5 * step)

    async def scene() -> None:
        fleet = Fleet(8)
        async with served(fleet, before=before) as (port, _), browser() as page:
            await page.look(width=1280)
            await opened(page, port, tiles=8)
            await page.until(
                f"{heartbeat}?.querySelector('path.line:not(.other)').getAttribute('d').length > 100"
            )
            line = await page.run(f"{heartbeat}.querySelector('path.line:not(.other)').getAttribute('d')")
            assert line.count("M") == 2
            scale = await page.run(f"{heartbeat}.querySelector('.scale.top').innerText")
            assert scale == "40 ms"
            await page.run(
                f"(() => {{ const svg = {heartbeat}.querySelector('svg'); const box = svg.getBoundingClientRect(); "
                "svg.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width / 4 })); })()"
            )
            assert not await page.run(f"{hint}.hidden")
            assert (await page.run(f"{hint}.innerText")).startswith("40 ms at ")
            await page.run(
                f"{heartbeat}.querySelector('svg').dispatchEvent(new PointerEvent('pointerleave'))"
            )
            assert await page.run(f"{hint}.hidden")

    run(scene())


def test_lines_of_one_kind_in_a_row_are_counted() -> None:
    async def before(views: HttpViews, fleet: Fleet) -> None:
        for second in range(14):
            fleet.clusters[1] = {"gaps": max(0, second - 1)}
            views.history.take(await fleet.status(), time.monotonic(), time.time())

    async def scene() -> None:
        fleet = Fleet(8)
        async with served(fleet, before=before) as (port, _), browser() as page:
            await opened(page, port, tiles=8)
            told = await page.run("document.querySelector('#happenings').innerText")
            assert told.count("sessions lost") == 3 and "and 9 like it since" in told

    run(scene())


def test_identifies_that_are_not_known_are_no_figure() -> None:
    async def scene() -> None:
        fleet = Fleet(8)
        # Every session was resumed after a restart: nobody has asked Discord yet.
        fleet.more = {"budget": BudgetStatus(None, None, None, None, 0)}
        async with served(fleet) as (port, _), browser() as page:
            await opened(page, port, tiles=8)
            assert await page.run("document.querySelector('#identifies').firstChild.textContent") == "–"
            assert (
                await page.run("document.querySelector('#budget').innerText") == "Discord has not said yet."
            )

    run(scene())
