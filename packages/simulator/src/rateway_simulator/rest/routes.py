"""Discord's REST as far as it is simulated, over a world: routes, and what is common to all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
from aiohttp import web
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest import application as rest_application
from rateway_simulator.rest import channels as rest_channels
from rateway_simulator.rest import commands as rest_commands
from rateway_simulator.rest import expressions as rest_expressions
from rateway_simulator.rest import gatherings as rest_gatherings
from rateway_simulator.rest import guilds as rest_guilds
from rateway_simulator.rest import interactions as rest_interactions
from rateway_simulator.rest import messages as rest_messages
from rateway_simulator.rest import moderation as rest_moderation
from rateway_simulator.rest import pages as rest_pages
from rateway_simulator.rest import speaking as rest_speaking
from rateway_simulator.rest import webhooks as rest_webhooks
from rateway_simulator.rest.answers import Refused, Rest, json_answer
from rateway_simulator.rest.limits import Limits
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.dispatch import Dispatch
from rateway_simulator.world.world import World

__all__ = ["GatewayFacts", "Limits", "routes", "setup"]

Handler = Callable[[Rest, web.Request], Awaitable[object]]
# Routes that the token in their path opens, or that need none.
_OPEN: Final = (
    "/interactions/",
    "/webhooks/{webhook_id}/{token}",
    "/gateway",
    "/guilds/{guild_id}/widget.json",
    "/sticker-packs",
)
# Routes without a bucket, and so without its headers: hikari complains of them there.
_UNLIMITED: Final = "/interactions/"
# What reading a value as what it is not raises.
_MALFORMED: Final = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
log = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode


class GatewayFacts(Protocol):
    """The facts about the gateway that REST needs; read for each request."""

    @property
    def url(self) -> str:
        """`ws://…` base URL for identifying."""
        ...

    @property
    def shards(self) -> int:
        """The recommended number of shards."""
        ...

    @property
    def token(self) -> str | None:
        """The bot's token, without `Bot `; None accepts any."""
        ...

    @property
    def privileged_intents(self) -> int:
        """The bits of those that are switched on."""
        ...

    def session_start_limit(self) -> Json:
        """`total`, `remaining`, `reset_after` (ms), `max_concurrency` as of now."""
        ...


def setup(
    app: web.Application, world: World, dispatch: Callable[[Dispatch], None], facts: GatewayFacts
) -> Rest:
    """Register `/api/v10/…` (any version), `/simulator/users/…`, `/simulator/world` and `/simulator/unsimulated`.

    `dispatch` is called in order with what each write made happen, before the write is answered.
    Do not register a catch-all below `/api` yourself: what is not simulated is answered 501 here.
    """
    rest = Rest(world, dispatch)
    limits = Limits()
    for method, route, handler in routes(facts):
        for prefix in (r"/api/v{version:\d+}", "/api"):
            app.router.add_route(
                method, prefix + route, _discord(rest, limits, facts, method, route, handler)
            )
    for method, route, handler in rest_speaking.ROUTES:
        app.router.add_route(method, "/simulator" + route, _own(rest, handler))
    app.router.add_route("*", "/api/{tail:.*}", _unsimulated(rest, facts))
    return rest


def routes(facts: GatewayFacts) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path below `/api/v10` and handler of all that is simulated."""
    return (
        ("GET", "/gateway", _gateway(facts)),
        ("GET", "/gateway/bot", _gateway_bot(facts)),
        ("GET", "/users/@me", _own_user),
        ("GET", "/users/{user_id}", _user),
        ("GET", "/applications/@me", _application(facts)),
        ("GET", "/oauth2/applications/@me", _application(facts)),
        *rest_channels.ROUTES,
        *rest_messages.ROUTES,
        *rest_guilds.ROUTES,
        *rest_moderation.ROUTES,
        *rest_expressions.ROUTES,
        *rest_gatherings.ROUTES,
        *rest_pages.ROUTES,
        # Before the commands: `permissions` is none of them.
        *rest_application.ROUTES,
        *rest_commands.ROUTES,
        *rest_interactions.ROUTES,
        *rest_webhooks.ROUTES,
    )


def _discord(
    rest: Rest, limits: Limits, facts: GatewayFacts, method: str, route: str, handler: Handler
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler as Discord has it: who asks, how often, and what went wrong."""
    # `/gateway/bot` tells a bot of itself, and needs its token.
    is_open = route.startswith(_OPEN) and route != "/gateway/bot"

    async def answer(request: web.Request) -> web.StreamResponse:
        now = time.time()
        where = request.match_info
        major = where.get("channel_id") or where.get("guild_id") or where.get("token") or ""
        if not is_open and not _authorized(request, facts):
            return Refused("unauthorized").response()
        if route.startswith(_UNLIMITED):
            return await _answered(rest, request, handler)
        verdict = limits.ask(method, route, major, now)
        if verdict.retry_after is not None:
            return _limited(verdict.retry_after, verdict.headers)
        response = await _answered(rest, request, handler)
        response.headers.update(verdict.headers)
        return response

    return answer


def _own(rest: Rest, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Wrap a handler of the simulator's own, for tests that act as users."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _answered(rest, request, handler)

    return answer


async def _answered(rest: Rest, request: web.Request, handler: Handler) -> web.StreamResponse:
    rest.world.wall = max(rest.world.wall, time.time())
    try:
        result = await handler(rest, request)
    except Refused as refused:
        return refused.response()
    except _MALFORMED as error:
        # A body of a shape that no field's own check has foreseen.
        log.warning(
            "%s %s was refused as an invalid form: %r",
            request.method,
            request.path,
            error,
            exc_info=log.isEnabledFor(logging.DEBUG),
        )
        return Refused("form").response()
    finally:
        rest.flush()
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    return web.Response(body=_encode(result), content_type="application/json")


def _authorized(request: web.Request, facts: GatewayFacts) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return kind == "Bot" and bool(token) and facts.token in (None, token)


def _limited(retry_after: float, headers: dict[str, str]) -> web.Response:
    body = {"message": "You are being rate limited.", "retry_after": round(retry_after, 3), "global": False}
    return json_answer(body, status=429, headers=headers)


def _unsimulated(rest: Rest, facts: GatewayFacts) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not _authorized(request, facts):
            return Refused("unauthorized").response()
        key = (request.method, request.path)
        if key in rest.unsimulated or len(rest.unsimulated) < 1000:
            rest.unsimulated[key] = rest.unsimulated.get(key, 0) + 1
        return Refused("unsimulated").response()

    return answer


def _gateway(facts: GatewayFacts) -> Handler:
    async def answer(rest: Rest, request: web.Request) -> Json:
        return {"url": facts.url}

    return answer


def _gateway_bot(facts: GatewayFacts) -> Handler:
    async def answer(rest: Rest, request: web.Request) -> Json:
        return {"url": facts.url, "shards": facts.shards, "session_start_limit": facts.session_start_limit()}

    return answer


async def _own_user(rest: Rest, request: web.Request) -> Json:
    return rest.world.ready_user()


async def _user(rest: Rest, request: web.Request) -> Json:
    user_id = request.match_info["user_id"]
    user = user_of(rest.world, user_id) if user_id.isdecimal() else None
    if user is None:
        raise Refused("user")
    return user


def _application(facts: GatewayFacts) -> Handler:
    async def answer(rest: Rest, request: web.Request) -> Json:
        return rest.world.application(facts.privileged_intents) | {"bot": rest.world.ready_user()}

    return answer
