"""Discord's REST over a world, without a gateway: what happened is kept in a list."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from rateway_protocol.discord.intents import PRIVILEGED
from rateway_simulator.rest import routes as rest
from rateway_simulator.world.dispatch import Dispatch, WorldOptions
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.people import TOKEN
from rateway_simulator.world.world import World

Json = dict[str, Any]


class Facts:
    """A gateway that is not there."""

    url = "ws://127.0.0.1:1"
    shards = 3
    token = TOKEN
    privileged_intents = PRIVILEGED

    def session_start_limit(self) -> Json:
        return {"total": 1000, "remaining": 999, "reset_after": 1000, "max_concurrency": 16}


class Api:
    """Asks as the bot, and remembers what was dispatched since it was last looked at."""

    def __init__(
        self, client: TestClient[web.Request, web.Application], world: World, happened: list[Dispatch]
    ) -> None:
        self._client = client
        self.world = world
        self._happened = happened

    @property
    def guild(self) -> Guild:
        return self.world.guild(self.world.guild_ids[0])

    def channel(self, kind: int = 0) -> str:
        """The first channel of a kind."""
        return next(key for key, d in self.guild.channels.items() if d["type"] == kind)

    def person(self, place: int = 1) -> str:
        """The id of a member of the first guild."""
        return self.world.people.id_of(self.guild.roster.first + place)

    def dispatched(self) -> list[tuple[str, Json]]:
        """Names and data of what happened since the last look."""
        found = [(dispatch.name, json.loads(json.dumps(dispatch.d))) for dispatch in self._happened]
        self._happened.clear()
        return found

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of a request; paths without `/` ahead are below `/api/v10/`."""
        path = path if path.startswith("/") else f"/api/v10/{path}"
        given = {"Authorization": f"Bot {TOKEN}"} if headers is None else headers
        async with self._client.request(method, path, json=body, headers=given) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None, response.headers

    async def do(self, method: str, path: str, body: object = None) -> Any:
        """The body of a request that must succeed."""
        status, answer, _ = await self.ask(method, path, body)
        assert status < 300, (status, answer)
        return answer

    async def post_form(
        self, path: str, fields: Mapping[str, str], *, file: str | None = None
    ) -> tuple[int, Any]:
        """Status and body of a form that is posted: urlencoded, or multipart with a file."""
        data: Any = dict(fields)
        if file is not None:
            data = FormData()
            for name, value in fields.items():
                data.add_field(name, value, content_type="application/json")
            data.add_field("files[0]", b"picture", filename=file)
        headers = {"Authorization": f"Bot {TOKEN}"}
        async with self._client.post(f"/api/v10/{path}", data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def form(self, path: str, fields: Mapping[str, str], *, file: str | None = None) -> Any:
        """The body of a form that must succeed."""
        status, answer = await self.post_form(path, fields, file=file)
        assert status < 300, (status, answer)
        return answer

    async def fails(self, method: str, path: str, body: object = None) -> tuple[int, int]:
        """Status and Discord's code of a request that must fail."""
        status, answer, _ = await self.ask(method, path, body)
        assert status >= 400 and isinstance(answer["message"], str), (status, answer)
        return status, answer["code"]


@asynccontextmanager
async def api(options: WorldOptions | None = None) -> AsyncIterator[Api]:
    """REST over a small world."""
    world = World(options or WorldOptions(guilds=3, members_per_guild=12))
    happened: list[Dispatch] = []
    app = web.Application()
    rest.setup(app, world, happened.append, Facts())
    async with TestClient(TestServer(app)) as client:
        yield Api(client, world, happened)
