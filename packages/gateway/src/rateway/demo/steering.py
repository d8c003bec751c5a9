"""The simulated Discord's own HTTP as seen from outside: its ledger, faults on demand, speaking as a user."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import aiohttp
import msgspec


class SentLine(msgspec.Struct, frozen=True):
    """One event of the ledger (docs/simulator.md, `GET /simulator/sent`)."""

    session: str
    shard: int
    seq: int
    event: str
    crc32: int


class Steering:
    """Requests below *control_url*. Use as `async with Steering(url) as simulator:`."""

    def __init__(self, control_url: str) -> None:
        self.url = control_url
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Steering:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def get(self, path: str) -> Any:
        """Return the decoded JSON of a GET; aiohttp's ClientError when it is refused."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: object) -> Any:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: object) -> Any:
        assert self._http is not None
        data = None if body is None else msgspec.json.encode(body)
        async with self._http.request(
            method, f"{self.url}/{path}", data=data, headers={"Content-Type": "application/json"}
        ) as response:
            text = await response.read()
            response.raise_for_status()
            return msgspec.json.decode(text) if text.strip() else None

    async def ledger(self) -> dict[str, Any]:
        """Totals: `events`, `violations`, `warnings`, `counts`, `connections`, `live`."""
        found: dict[str, Any] = await self.get("ledger")
        return found

    async def violations(self) -> list[dict[str, Any]]:
        """Rules that the gateway broke or was warned of: it keeps both kinds."""
        found: list[dict[str, Any]] = [*await self.get("violations"), *await self.get("warnings")]
        return found

    async def sent(self) -> list[SentLine]:
        """Return every event that was given a number, in order."""
        assert self._http is not None
        decoder = msgspec.json.Decoder(SentLine)
        async with self._http.get(f"{self.url}/sent") as response:
            response.raise_for_status()
            return [decoder.decode(line) async for line in response.content]

    async def fault(self, kind: str, **fields: object) -> int:
        """Make a fault happen; how many connections it hit."""
        answer = await self.post("faults", {"kind": kind, **fields})
        return int(answer["connections"])

    async def rate(self, rate: float, *, events: int | None = None) -> None:
        """Events a second from now on."""
        await self.post("rate", {"rate": rate} if events is None else {"rate": rate, "events": events})

    async def guilds(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Each guild with `id`, `channel_id` of a text channel, and the ids of some `members`, none a bot."""
        found: list[dict[str, Any]] = await self.get(f"guilds?limit={limit}")
        return found

    async def speak(self, user_id: str, channel_id: str, content: str) -> str:
        """Say something as a user; the message's id."""
        message = await self.post(f"users/{user_id}/messages", {"channel_id": channel_id, "content": content})
        return str(message["id"])
