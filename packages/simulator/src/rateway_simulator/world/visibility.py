"""Which session sees which dispatch, and how much of it (docs: Gateway, Gateway Intents)."""

from __future__ import annotations

from typing import Final

from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import Intents
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.dispatch import Dispatch

_DIRECT: Final = int(
    Intents.DIRECT_MESSAGES
    | Intents.DIRECT_MESSAGE_REACTIONS
    | Intents.DIRECT_MESSAGE_TYPING
    | Intents.DIRECT_MESSAGE_POLLS
)
_IN_GUILDS: Final = {name: spec.intents & ~_DIRECT for name, spec in EVENTS.items()}
_IN_DIRECT: Final = {name: spec.intents & _DIRECT for name, spec in EVENTS.items()}
# All that concerns the bot itself, though an intent is named for it.
_OWN: Final = frozenset({"GUILD_MEMBER_UPDATE"})
_MESSAGES: Final = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE"})
# What one gets of a THREAD_MEMBERS_UPDATE about others.
_THREAD_PEOPLE: Final = int(Intents.GUILD_MEMBERS)


def visible(dispatch: Dispatch, intents: int) -> bool:
    """Whether a session with these intents receives the dispatch."""
    name = dispatch.name
    if name == "THREAD_MEMBERS_UPDATE":
        return bool(intents & (_IN_GUILDS[name] if dispatch.own else _THREAD_PEOPLE))
    if dispatch.own and name in _OWN:
        return True
    wanted = EVENTS.get(name)
    if wanted is None or not wanted.intents:
        return True
    return bool(intents & (_IN_DIRECT[name] if dispatch.direct else _IN_GUILDS[name]))


def trimmed(dispatch: Dispatch, intents: int) -> Json:
    """The dispatch's `d` as a session with these intents sees it: without MESSAGE_CONTENT, no content."""
    d = dispatch.d
    if intents & Intents.MESSAGE_CONTENT:
        return d
    if dispatch.name in _MESSAGES and not dispatch.revealed:
        return without_content(d)
    if dispatch.name == "AUTO_MODERATION_ACTION_EXECUTION":
        return {**d, "content": "", "matched_content": ""}
    return d


def without_content(d: Json) -> Json:
    """A message without what MESSAGE_CONTENT reveals: texts and lists are empty, the poll is left out."""
    bare = {key: value for key, value in d.items() if key != "poll"}
    for key, value in (("content", ""), ("embeds", []), ("attachments", []), ("components", [])):
        if key in bare:
            bare[key] = value
    if isinstance(referenced := bare.get("referenced_message"), dict):
        bare["referenced_message"] = without_content(referenced)
    if snapshots := bare.get("message_snapshots"):
        bare["message_snapshots"] = [{"message": without_content(s["message"])} for s in snapshots]
    return bare
