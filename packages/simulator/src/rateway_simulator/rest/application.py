"""REST of the bot itself and of its application: user, command permissions, SKUs, entitlements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import Refused, Rest, guild_of, object_of, picture, whole, wrong
from rateway_simulator.world.changes import members as world_members

# What an application may change of itself (docs: Application, Edit Current Application).
_APPLICATION_FIELDS: Final = (
    "custom_install_url",
    "description",
    "role_connections_verification_url",
    "install_params",
    "integration_types_config",
    "flags",
    "interactions_endpoint_url",
    "tags",
    "event_webhooks_url",
    "event_webhooks_status",
    "event_webhooks_types",
)
_SKU: Final = "1019475255913222144"
# Entitlements (docs: Entitlement): types of owners, and the type of a test entitlement.
_GUILD_OWNER: Final = 1
_TEST: Final = 8


async def _edit_user(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    fields: Json = {}
    if body.get("username") is not None:
        if not 2 <= len(str(body["username"])) <= 32:
            raise wrong("username", "BASE_TYPE_BAD_LENGTH", "Must be between 2 and 32 in length.")
        fields["username"] = str(body["username"])
    for key in ("avatar", "banner"):
        if key in body:
            fields[key] = picture(body[key])
    if fields:
        world_members.update_own_user(rest.world, **fields)
    return rest.world.ready_user()


async def _edit_application(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    app = rest.world.app
    app.d.update({key: body[key] for key in _APPLICATION_FIELDS if key in body})
    for key in ("icon", "cover_image"):
        if key in body:
            app.d[key] = picture(body[key])
    return app.d | {"bot": rest.world.ready_user()}


def _own(rest: Rest, request: web.Request) -> None:
    if request.match_info["application_id"] != rest.world.app.id:
        raise Refused("access")


# Permissions of commands: none was changed.


async def _all_permissions(rest: Rest, request: web.Request) -> list[Json]:
    _own(rest, request)
    guild_of(rest, request)
    return []


async def _permissions(rest: Rest, request: web.Request) -> Json:
    _own(rest, request)
    guild_of(rest, request)
    raise Refused("command_permissions")


# What can be bought


async def _set_permissions(rest: Rest, request: web.Request) -> Json:
    """Only users may change them, with a token of their own (docs: Edit Application Command Permissions)."""
    raise Refused("bots")


async def _skus(rest: Rest, request: web.Request) -> list[Json]:
    _own(rest, request)
    return [
        {
            "id": _SKU,
            "type": 5,
            "application_id": rest.world.app.id,
            "name": "Test Premium",
            "slug": "test-premium",
            "flags": 1 << 2 | 1 << 7,
            "dependent_sku_id": None,
            "manifest_labels": None,
            "access_type": 1,
            "features": [],
            "release_date": None,
            "premium": False,
            "show_age_gate": False,
        }
    ]


async def _entitlements(rest: Rest, request: web.Request) -> list[Json]:
    _own(rest, request)
    query = request.query
    found = sorted(rest.world.app.entitlements.values(), key=lambda d: int(d["id"]))
    for key in ("user_id", "guild_id"):
        if key in query:
            found = [d for d in found if d.get(key) == query[key]]
    if "sku_ids" in query:
        found = [d for d in found if d["sku_id"] in query["sku_ids"].split(",")]
    if query.get("exclude_ended", "").lower() in ("true", "1"):
        found = [d for d in found if d["ends_at"] is None or d["ends_at"] > rest.world.now()]
    limit = whole(request, "limit", 100, 100)
    if "before" in query:
        return [d for d in found if int(d["id"]) < int(query["before"])][-limit:]
    return [d for d in found if int(d["id"]) > int(query.get("after", "0"))][:limit]


def _entitlement(rest: Rest, request: web.Request) -> Json:
    _own(rest, request)
    d = rest.world.app.entitlements.get(request.match_info["entitlement_id"])
    if d is None:
        raise Refused("entitlement")
    return d


async def _get_entitlement(rest: Rest, request: web.Request) -> Json:
    return _entitlement(rest, request)


async def _create_entitlement(rest: Rest, request: web.Request) -> Json:
    """Create a test entitlement."""
    body = await object_of(request)
    _own(rest, request)
    if str(body.get("sku_id")) != _SKU:
        raise Refused("sku")
    owner = str(body.get("owner_id", ""))
    of_guild = body.get("owner_type") == _GUILD_OWNER
    if not owner.isdecimal():
        raise wrong("owner_id", "NUMBER_TYPE_COERCE", "Value is not snowflake.")
    world = rest.world
    entitlement_id = world.snowflake()
    d = payloads.entitlement(
        entitlement_id, world.app.id, None if of_guild else owner, owner if of_guild else None, world.wall
    )
    # It belongs to no subscription and has no end.
    del d["subscription_id"]
    d |= {"type": _TEST, "starts_at": None, "ends_at": None}
    world.app.entitlements[entitlement_id] = d
    world.emit("ENTITLEMENT_CREATE", None, d)
    return d


async def _consume(rest: Rest, request: web.Request) -> None:
    d = {**_entitlement(rest, request), "consumed": True}
    rest.world.app.entitlements[d["id"]] = d
    rest.world.emit("ENTITLEMENT_UPDATE", None, d)


async def _delete_entitlement(rest: Rest, request: web.Request) -> None:
    d = _entitlement(rest, request)
    del rest.world.app.entitlements[d["id"]]
    rest.world.emit("ENTITLEMENT_DELETE", None, {**d, "deleted": True})


_APPLICATION: Final = "/applications/{application_id}"
_IN_GUILD: Final = _APPLICATION + "/guilds/{guild_id}/commands"
_ONE: Final = _APPLICATION + "/entitlements/{entitlement_id}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("PATCH", "/users/@me", _edit_user),
    ("PATCH", "/applications/@me", _edit_application),
    ("GET", _IN_GUILD + "/permissions", _all_permissions),
    ("GET", _IN_GUILD + "/{command_id}/permissions", _permissions),
    ("PUT", _IN_GUILD + "/{command_id}/permissions", _set_permissions),
    ("GET", _APPLICATION + "/skus", _skus),
    ("GET", _APPLICATION + "/entitlements", _entitlements),
    ("POST", _APPLICATION + "/entitlements", _create_entitlement),
    ("GET", _ONE, _get_entitlement),
    ("DELETE", _ONE, _delete_entitlement),
    ("POST", _ONE + "/consume", _consume),
)
