"""Discord's REST over real sockets: what it may answer, and what is made of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.secret import Secret
from rateway.transports import rest
from rateway.transports.rest import Application, DiscordRest, GatewayBot, RestFailure, backoff

from tests.aio import run

GOOD: dict[str, Any] = {
    "url": "wss://gateway.discord.gg",
    "shards": 9,
    "session_start_limit": {"total": 1000, "remaining": 999, "reset_after": 14400000, "max_concurrency": 1},
}

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def discord(handler: Handler, timeout: float = 5.0) -> AsyncIterator[DiscordRest]:
    """A server on loopback that answers everything with *handler*, and a client of it."""
    server = web.Server(handler)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield DiscordRest(f"http://127.0.0.1:{port}/api/v10/", Secret("tok.en"), timeout=timeout)
    finally:
        await runner.cleanup()


def ask(handler: Handler, *, timeout: float = 5.0) -> GatewayBot | RestFailure:
    async def asked() -> GatewayBot | RestFailure:
        async with discord(handler, timeout) as client:
            return await client.gateway_bot()

    return run(asked())


def answering(**response: Any) -> Handler:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(**response) if "data" in response else web.Response(**response)

    return handler


def failure(handler: Handler, **more: Any) -> RestFailure:
    answer = ask(handler, **more)
    assert isinstance(answer, RestFailure), answer
    assert answer.text and "tok.en" not in answer.text
    return answer


def test_the_gateway_and_its_limits_are_read() -> None:
    assert ask(answering(data=GOOD)) == GatewayBot("wss://gateway.discord.gg", 9, 1000, 999, 14400000, 1)


def test_the_request_names_the_client_and_carries_the_token() -> None:
    seen: dict[str, str] = {}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.update(request.headers, path=request.path)
        return web.json_response(GOOD)

    ask(handler)
    assert seen["path"] == "/api/v10/gateway/bot"
    assert seen["Authorization"] == "Bot tok.en"
    assert seen["User-Agent"].startswith("DiscordBot (https://")


def test_a_dead_token_is_told_and_not_used_again_for_a_minute() -> None:
    asked = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.json_response({"message": "401: Unauthorized", "code": 0}, status=401)

    async def twice() -> list[Any]:
        async with discord(handler) as client:
            return [await client.gateway_bot(), await client.application(), await client.gateway_bot()]

    answers = run(twice())
    assert [answer.kind for answer in answers] == ["unauthorized"] * 3
    assert asked == 1


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        (
            {"Retry-After": "7"},
            {"message": "You are being rate limited.", "retry_after": 6.457, "global": False},
            7.0,
        ),
        ({"Retry-After": "1"}, {"retry_after": 1.5}, 1.5),
        ({}, {"retry_after": 0.3}, 0.3),
        ({"Retry-After": "65"}, "<html>Error 1015</html>", 65.0),
        ({}, "", None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0.0),
        ({"Retry-After": "-3"}, {"retry_after": -1}, None),
        ({"Retry-After": "nan"}, "", None),
        ({"Retry-After": "99999999"}, "", 86400.0),
        ({"Retry-After": "inf"}, "", None),
        ({"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"}, "", 86400.0),
    ],
)
def test_429_waits_as_long_as_discord_says(headers: dict[str, str], body: Any, wait: float | None) -> None:
    kind = {"data": body} if isinstance(body, dict) else {"text": body}
    answer = failure(answering(status=429, headers=headers, **kind))
    assert (answer.kind, answer.retry_after, answer.status) == ("rate_limited", wait, 429)


@pytest.mark.parametrize("status", [403, 408, 500, 502, 503, 504, 520])
def test_what_passes_by_itself_may_be_asked_again(status: int) -> None:
    answer = failure(answering(status=status, text="no"))
    assert (answer.kind, answer.status) == ("unavailable", status)


def test_503_with_a_time_is_waited_for() -> None:
    assert failure(answering(status=503, headers={"Retry-After": "12"})).retry_after == 12.0


@pytest.mark.parametrize("status", [301, 404, 400, 204])
def test_what_discord_never_answers_is_not_discord(status: int) -> None:
    assert failure(answering(status=status, headers={"Location": "/x"})).kind == "invalid"


@pytest.mark.checklist("A13")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"message": "You are being rate limited.", "retry_after": 31.5, "global": true}', "rate_limited"),
        ("<!DOCTYPE html><html><head><title>Just a moment…</title></head></html>", "invalid"),
        ("", "invalid"),
        ("null", "invalid"),
        ("[]", "invalid"),
        ('{"url": "wss://gateway.discord.gg"}', "invalid"),
        ('{"url": 3, "shards": "many", "session_start_limit": null}', "invalid"),
    ],
)
def test_200_with_something_else_is_no_answer(body: str, kind: str) -> None:
    answer = failure(answering(status=200, text=body))
    assert answer.kind == kind
    assert answer.retry_after == (31.5 if kind == "rate_limited" else None)


@pytest.mark.checklist("A13")
@pytest.mark.parametrize(
    ("field", "value"),
    [("url", ""), ("url", "https://discord.com"), ("url", "wss://"), ("shards", 0), ("shards", -1), ("shards", 1.5),
     ("total", -1), ("remaining", -1), ("reset_after", -1), ("max_concurrency", 0)],
)  # fmt: skip
def test_nonsense_in_a_field_is_no_answer(field: str, value: object) -> None:
    limit = GOOD["session_start_limit"]
    body = GOOD | {field: value} if field in GOOD else GOOD | {"session_start_limit": limit | {field: value}}
    assert failure(answering(data=body)).kind == "invalid"


def test_a_fallback_stands_ready() -> None:
    assert rest.FALLBACK_GATEWAY == "wss://gateway.discord.gg"


def test_silence_ends_after_the_timeout() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    answer = failure(handler, timeout=0.2)
    assert answer.kind == "unavailable"
    assert "0.2 s" in answer.text


def test_a_trickle_of_bytes_does_not_outlive_the_timeout_nor_the_bound() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    assert failure(handler).kind == "invalid"


def test_a_connection_that_breaks_may_be_asked_again() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert failure(handler).kind == "unavailable"


def test_a_body_that_breaks_off_may_be_asked_for_again() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "500"})
        await response.prepare(request)
        await response.write(b'{"url": ')
        assert request.transport is not None
        request.transport.close()
        return response

    answer = failure(handler)
    assert answer.kind == "unavailable"
    assert "broke off" in answer.text


def test_a_redirection_is_not_followed_with_the_token() -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    assert failure(handler).kind == "invalid"
    assert asked == ["/api/v10/gateway/bot"]


def test_the_environments_proxy_is_asked_in_discords_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert request.raw_path == "http://discord.invalid/api/v10/gateway/bot"
        return web.json_response(GOOD)

    async def asked() -> GatewayBot | RestFailure:
        async with discord(handler) as beside:
            monkeypatch.setenv("http_proxy", beside._api_url.removesuffix("/api/v10"))
            monkeypatch.setenv("no_proxy", "")
            return await DiscordRest("http://discord.invalid/api/v10", Secret("tok.en")).gateway_bot()

    assert isinstance(run(asked()), GatewayBot)


def test_nobody_there_is_told_with_the_address() -> None:
    async def asked() -> Any:
        return await DiscordRest("http://127.0.0.1:1/api/v10", Secret("tok.en")).gateway_bot()

    answer = run(asked())
    assert answer.kind == "unavailable"
    assert "127.0.0.1:1" in answer.text


@pytest.mark.parametrize(
    ("flags", "intents"),
    [(0, 0), (1 << 12, 256), (1 << 13, 256), (1 << 14, 2), (1 << 15, 2), (1 << 18, 32768), (1 << 19, 32768),
     (1 << 13 | 1 << 15 | 1 << 19 | 1 << 23, 33026)],
)  # fmt: skip
def test_the_flags_of_the_application_say_which_privileged_intents_are_on(flags: int, intents: int) -> None:
    async def asked() -> Any:
        async with discord(answering(data={"id": "42", "name": "bot", "flags": flags})) as client:
            return await client.application()

    assert run(asked()) == Application(42, "bot", intents)


@given(st.binary(max_size=80))
def test_whatever_body_comes_is_an_answer_or_a_failure(body: bytes) -> None:
    assert isinstance(rest.read_gateway_bot(body), GatewayBot | RestFailure)
    assert isinstance(rest.read_application(body), Application | RestFailure)


@given(st.integers(min_value=1, max_value=10**6), st.floats(min_value=0, max_value=0.999))
def test_the_wait_grows_to_a_minute_and_no_further(attempt: int, chance: float) -> None:
    wait = backoff(RestFailure("unavailable", "no"), attempt, chance)
    assert 0.5 <= wait <= 60
    assert backoff(RestFailure("rate_limited", "no", 30.0), attempt, chance) >= 30.0


@pytest.mark.checklist("K19")
@pytest.mark.parametrize("shards", [65_537, 10**9, 10**40])
def test_more_shards_than_any_bot_has_are_refused_with_words(shards: int) -> None:
    answer = failure(answering(data=GOOD | {"shards": shards}))
    assert answer.kind == "invalid"
    assert "shards" in answer.text or "out of range" in answer.text
    at_most = ask(answering(data=GOOD | {"shards": 65_536}))
    assert isinstance(at_most, GatewayBot) and at_most.shards == 65_536


@pytest.mark.checklist("K58")
@pytest.mark.parametrize(
    "url", ["wss://evil.example", "ws://gateway.discord.gg", "ws://127.0.0.2:1", "wss://["]
)
def test_a_gateway_that_the_token_must_not_go_to_is_no_answer(url: str) -> None:
    answer = failure(answering(data=GOOD | {"url": url}))
    assert answer.kind == "invalid" and "the gateway" in answer.text, answer


HOSTILE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LIMITS = st.dictionaries(
    st.sampled_from(["total", "remaining", "reset_after", "max_concurrency"]),
    st.integers() | st.integers(10**17, 10**40) | HOSTILE_JSON,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    HOSTILE_JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "url": st.just("wss://gateway.discord.gg") | st.text(max_size=30) | HOSTILE_JSON,
            "shards": st.integers() | HOSTILE_JSON,
            "session_start_limit": LIMITS,
            "retry_after": st.floats() | HOSTILE_JSON,
            "id": st.text(alphabet="0123456789", max_size=5000) | st.text() | HOSTILE_JSON,
            "name": st.text(max_size=5),
            "flags": st.integers() | HOSTILE_JSON,
        },
    ).map(lambda body: json.dumps(body).encode()),
    st.integers(1, 100_000).map(lambda deep: b'{"x":' + b"[" * deep + b"]" * deep + b"}"),
)
ANSWERS = st.tuples(
    st.sampled_from([200, 200, 200, 204, 301, 400, 403, 404, 408, 429, 500, 503]),
    BODIES,
    st.none() | st.sampled_from(["inf", "nan", "1e18", "-1", "", "9" * 500, "x"]) | st.floats().map(str),
)


@pytest.mark.checklist("K19", "K20")
def test_whatever_rest_answers_is_a_value_and_the_next_answer_is_read() -> None:
    async def asked(answers: list[tuple[int, bytes, str | None]]) -> list[Any]:
        coming = iter([*answers, (200, json.dumps(GOOD).encode(), None)])

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            status, body, retry_after = next(coming)
            headers = {} if retry_after is None else {"Retry-After": retry_after}
            return web.Response(status=status, body=body, headers=headers)

        found: list[Any] = []
        async with discord(handler) as client:
            for number in range(len(answers)):
                answer = await (client.gateway_bot() if number % 2 else client.application())
                found += [answer]
            found.append(await client.gateway_bot())
        return found

    @settings(max_examples=60, deadline=None)
    @given(st.lists(ANSWERS, max_size=6))
    def check(answers: list[tuple[int, bytes, str | None]]) -> None:
        *odd, last = run(asked(answers))
        assert isinstance(last, GatewayBot)
        for answer in odd:
            if isinstance(answer, RestFailure):
                assert answer.retry_after is None or 0 <= answer.retry_after <= 86_400
                assert len(answer.text) < 1000
                assert 0 <= backoff(answer, 5, 0.5) <= 86_401
            elif isinstance(answer, GatewayBot):
                assert 1 <= answer.shards <= 65_536

    check()


@pytest.mark.checklist("K30")
@given(
    st.sampled_from(
        [RestFailure("rate_limited", "429", None, 429), RestFailure("unavailable", "403", None, 403)]
    ),
    st.floats(min_value=0, max_value=0.999),
)
def test_a_429_that_names_no_time_is_waited_for_as_a_403_is(failed: RestFailure, chance: float) -> None:
    waits = [backoff(failed, attempt, chance) for attempt in range(1, 12)]
    assert waits == [backoff(RestFailure("unavailable", ""), attempt, chance) for attempt in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[-1] >= 30.0


@pytest.mark.checklist("K30")
@given(st.floats(min_value=0, max_value=5), st.floats(min_value=0, max_value=0.999))
def test_a_short_time_that_is_named_again_and_again_is_not_believed_for_ever(
    named: float, chance: float
) -> None:
    failed = RestFailure("rate_limited", "429", named, 429)
    assert backoff(failed, 1, chance) >= named
    assert backoff(failed, 11, chance) >= 30.0
