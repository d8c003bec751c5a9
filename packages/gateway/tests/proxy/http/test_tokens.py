"""Who may connect, and what is made of the bot's token."""

from __future__ import annotations

import pytest
from rateway.proxy.http.tokens import Tokens
from rateway.secret import Secret

BOT, WORKER = Secret("bot.to.ken"), Secret("a-token-of-workers")


@pytest.mark.parametrize("given", ["bot.to.ken", "Bot bot.to.ken", "  bot bot.to.ken ", "a-token-of-workers"])
def test_either_token_is_admitted_with_bot_in_front_of_it_or_without(given: str) -> None:
    assert Tokens(BOT, WORKER).admits(given)


@pytest.mark.parametrize(
    "given", ["", "Bot", "Bot ", "bot.to.ke", "bot.to.kenn", "BOT.TO.KEN", "ä", "\ud800"]
)
def test_nothing_else_is(given: str) -> None:
    assert not Tokens(BOT, WORKER).admits(given)
    assert not Tokens(BOT, None).admits(given)


def test_without_a_token_of_workers_only_the_bots_own_is_admitted() -> None:
    assert not Tokens(BOT, None).admits("a-token-of-workers")
    assert Tokens(BOT, None).admits("bot.to.ken")


def test_a_header_needs_the_word_bot() -> None:
    tokens = Tokens(BOT, WORKER)
    assert tokens.admits_header("Bot bot.to.ken") and tokens.admits_header("bot a-token-of-workers")
    assert not tokens.admits_header("bot.to.ken") and not tokens.admits_header("Bearer bot.to.ken")


def test_discord_always_gets_the_bots_own() -> None:
    assert Tokens(BOT, WORKER).header() == "Bot bot.to.ken"


def test_a_key_is_the_same_in_every_proxy_of_the_bot_and_for_no_other_purpose_or_bot() -> None:
    key = Tokens(BOT, WORKER).key(b"sessions")
    assert key == Tokens(BOT, None).key(b"sessions") and len(key) == 32
    assert key != Tokens(BOT, None).key(b"other")
    assert key != Tokens(WORKER, None).key(b"sessions")
    assert b"bot.to.ken" not in key


def test_tokens_are_not_shown() -> None:
    shown = repr(Tokens(BOT, WORKER))
    assert "bot.to.ken" not in shown and "workers" not in shown
