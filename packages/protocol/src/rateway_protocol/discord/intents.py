"""The intents: which events a bot asks for (Discord documentation, "Gateway": "List of Intents")."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from enum import IntFlag

__all__ = ["ALL", "PRIVILEGED", "UNDOCUMENTED", "Intents", "names", "parse"]


class Intents(IntFlag):
    """The documented intents. Bits 17–19, 22, 23 and 26 on are not defined; Discord answers one with 4013."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_MODERATION = 1 << 2
    GUILD_EXPRESSIONS = 1 << 3
    GUILD_INTEGRATIONS = 1 << 4
    GUILD_WEBHOOKS = 1 << 5
    GUILD_INVITES = 1 << 6
    GUILD_VOICE_STATES = 1 << 7
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_MESSAGE_REACTIONS = 1 << 10
    GUILD_MESSAGE_TYPING = 1 << 11
    DIRECT_MESSAGES = 1 << 12
    DIRECT_MESSAGE_REACTIONS = 1 << 13
    DIRECT_MESSAGE_TYPING = 1 << 14
    MESSAGE_CONTENT = 1 << 15
    GUILD_SCHEDULED_EVENTS = 1 << 16
    AUTO_MODERATION_CONFIGURATION = 1 << 20
    AUTO_MODERATION_EXECUTION = 1 << 21
    GUILD_MESSAGE_POLLS = 1 << 24
    DIRECT_MESSAGE_POLLS = 1 << 25


ALL: int = sum(Intents)
PRIVILEGED: int = Intents.GUILD_MEMBERS | Intents.GUILD_PRESENCES | Intents.MESSAGE_CONTENT
"""Intents that have to be switched on in the developer portal; Discord answers others' use with 4014."""

UNDOCUMENTED: int = 1 << 17
"""A bit that the documentation does not name and Discord takes: interactions.py asks for it with its default intents,
on Python 3.11 and newer."""

# Names that Discord used before, and words that mean several.
_ALIASES = {
    "GUILD_BANS": int(Intents.GUILD_MODERATION),
    "GUILD_EMOJIS_AND_STICKERS": int(Intents.GUILD_EXPRESSIONS),
    "GUILD_EMOJIS": int(Intents.GUILD_EXPRESSIONS),
    "ALL": ALL,
    "ALL_NON_PRIVILEGED": ALL & ~PRIVILEGED,
}


def parse(value: int | str | Iterable[str | int]) -> int:
    """The bits of *value*: a number, a text with a number or names (``GUILDS,GUILD_MESSAGES``), or a list of them.

    Raises ValueError that names what is wrong, with the nearest name; also for a bit that is not defined.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is neither a number nor names of intents")
    if isinstance(value, int):
        return _checked(value)
    if isinstance(value, str):
        return _parse_words(re.split(r"[\s,|+]+", value.strip()))
    return _parse_words(list(value))


def _parse_words(words: list[str | int] | list[str]) -> int:
    bits = 0
    for word in words:
        if isinstance(word, int):
            bits |= parse(word)
        elif isinstance(word, str):
            bits |= _parse_word(word.strip())
        else:
            raise ValueError(f"{word!r} is not the name of an intent")
    return bits


def _parse_word(word: str) -> int:
    if not word:
        return 0
    if re.fullmatch(r"[+-]?[0-9]{1,30}", word):
        return _checked(int(word))
    name = word.upper().replace("-", "_")
    if name in Intents.__members__:
        return int(Intents[name])
    if name in _ALIASES:
        return _ALIASES[name]
    near = difflib.get_close_matches(name, [*Intents.__members__, *_ALIASES], n=1, cutoff=0.5)
    raise ValueError(f"{word!r} is not an intent" + (f"; did you mean {near[0]}?" if near else ""))


def _checked(bits: int) -> int:
    if bits < 0:
        raise ValueError(f"{bits} is negative")
    unknown = bits & ~ALL
    if unknown:
        which = ", ".join(str(bit) for bit in range(unknown.bit_length()) if unknown >> bit & 1)
        raise ValueError(f"{bits} has a bit that is no intent (bit {which}); all intents together are {ALL}")
    return bits


def names(bits: int) -> list[str]:
    """Return the names of the intents in *bits*, lowest first; undefined bits are left out."""
    return [intent.name for intent in Intents if bits & intent and intent.name is not None]
