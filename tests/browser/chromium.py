"""Chromium without a window, steered over its DevTools protocol (a websocket): enough to look at a page and use it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless=new",
    # Tests run as root in containers; no page but ours is opened.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
# A browser's first start on a busy machine.
STARTS_WITHIN_S = 60.0


class Page:
    """One open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        """Errors and console messages of the page."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded: dict[str, asyncio.Event] = {}

    async def listen(self) -> None:
        """Take in what the browser says, until it is gone."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
            elif told["method"] == "Page.lifecycleEvent" and told["params"]["name"] == "load":
                self._loading(told["params"]["loaderId"]).set()
            elif told["method"] == "Runtime.exceptionThrown":
                self.said.append(json.dumps(told["params"]["exceptionDetails"]))
            elif told["method"] == "Runtime.consoleAPICalled":
                self.said.append(json.dumps(told["params"]["args"]))
            elif told["method"] == "Log.entryAdded":
                self.said.append(told["params"]["entry"]["text"])

    def _loading(self, loader: str) -> asyncio.Event:
        return self._loaded.setdefault(loader, asyncio.Event())

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await answer
        assert "error" not in told, told
        return told["result"]

    async def open(self, url: str) -> None:
        """Go there, and wait until it has loaded."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        told = await self.call("Page.navigate", url=url)
        await self._loading(told["loaderId"]).wait()

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression: str, *, within_s: float = 60.0) -> None:
        """Wait until a JavaScript expression is true; AssertionError when it is not within so long."""
        wait = (
            "new Promise((done) => { const look = () => (%s) ? done(true) : setTimeout(look, 20); look(); })"
        )
        try:
            async with asyncio.timeout(within_s):
                await self.run(wait % expression)
        except TimeoutError:
            raise AssertionError(f"never true: {expression}") from None

    async def key(self, key: str) -> None:
        """Press and release a key by its name."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    async def look(self, *, width: int, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """The window's size in CSS pixels, and the colours that the person prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        told = await self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A fresh browser with one empty page; it and all that it started end with the block."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert program is not None, "there is no Chromium: run `make install-tools` (as root)"
    # Not pytest's folder: the browser still writes while it ends.
    folder = Path(tempfile.mkdtemp(prefix="rateway-browser-"))
    process = await asyncio.create_subprocess_exec(
        program, *SWITCHES, f"--user-data-dir={folder}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    )  # fmt: skip
    try:
        port = await asyncio.wait_for(_port(process), STARTS_WITHIN_S)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                target = next(each for each in await answer.json() if each["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    yield page
                finally:
                    listening.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _port(process: asyncio.subprocess.Process) -> int:
    """Chromium says on standard error where it listens."""
    assert process.stderr is not None
    said = []
    while line := await process.stderr.readline():
        said.append(line.decode(errors="replace"))
        if b"DevTools listening on ws://" in line:
            return int(line.split(b"127.0.0.1:")[1].split(b"/")[0])
    raise AssertionError(f"Chromium ended: {''.join(said)}")
