"""REST of application commands, everywhere and in one guild (docs: Application Commands)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import Refused, Rest, body_of, guild_of, json_answer, object_of, wrong
from rateway_simulator.world.changes.interactions import command

_NAME: Final = re.compile(r"^[-_'\w]{1,32}$")


def _scope(rest: Rest, request: web.Request) -> str | None:
    if request.match_info["application_id"] != rest.world.app.id:
        raise Refused("access")
    return guild_of(rest, request).id if "guild_id" in request.match_info else None


def _commands(rest: Rest, request: web.Request) -> dict[str, Json]:
    return rest.world.app.commands.setdefault(_scope(rest, request), {})


def _checked(body: object) -> Json:
    if not isinstance(body, dict):
        raise wrong("_errors", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
    kind = body.get("type", 1)
    name = body.get("name")
    if not isinstance(name, str) or (kind == 1 and not (_NAME.match(name) and name == name.lower())):
        raise wrong("name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    if kind == 1 and not 1 <= len(str(body.get("description") or "")) <= 100:
        raise wrong("description", "BASE_TYPE_REQUIRED", "This field is required")
    return body


async def _list(rest: Rest, request: web.Request) -> list[Json]:
    return list(_commands(rest, request).values())


async def _create(rest: Rest, request: web.Request) -> web.Response:
    body = _checked(await object_of(request))
    scope = _scope(rest, request)
    before = len(_commands(rest, request))
    d = command(rest.world, scope, body)
    return json_answer(d, status=201 if len(_commands(rest, request)) > before else 200)


async def _replace(rest: Rest, request: web.Request) -> list[Json]:
    bodies = await body_of(request)
    if not isinstance(bodies, list):
        raise wrong("_errors", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    checked = [_checked(body) for body in bodies]
    scope = _scope(rest, request)
    commands = [command(rest.world, scope, body) for body in checked]
    rest.world.app.commands[scope] = {d["id"]: d for d in commands}
    return commands


def _known(rest: Rest, request: web.Request) -> Json:
    d = _commands(rest, request).get(request.match_info["command_id"])
    if d is None:
        raise Refused("command")
    return d


async def _get(rest: Rest, request: web.Request) -> Json:
    return _known(rest, request)


async def _edit(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    before = _known(rest, request)
    _checked({**before, **body})
    return command(rest.world, _scope(rest, request), body, before["id"])


async def _delete(rest: Rest, request: web.Request) -> None:
    del _commands(rest, request)[_known(rest, request)["id"]]


_EVERYWHERE: Final = "/applications/{application_id}/commands"
_IN_GUILD: Final = "/applications/{application_id}/guilds/{guild_id}/commands"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = tuple(
    (method, base + tail, handler)
    for base in (_EVERYWHERE, _IN_GUILD)
    for method, tail, handler in (
        ("GET", "", _list),
        ("POST", "", _create),
        ("PUT", "", _replace),
        ("GET", "/{command_id}", _get),
        ("PATCH", "/{command_id}", _edit),
        ("DELETE", "/{command_id}", _delete),
    )
)
