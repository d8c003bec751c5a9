"""Which session sees which dispatch, and how much of it: the protocol's rules, for events that know what they are."""

from __future__ import annotations

from rateway_protocol.discord.intents import Intents
from rateway_protocol.discord.visibility import (
    CONTENT,
    CONTENT_OMITTED,
    EXECUTION_CONTENT,
    MESSAGES,
    receives,
)
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.dispatch import Dispatch


def visible(dispatch: Dispatch, intents: int) -> bool:
    """Return whether a session with these intents receives the dispatch."""
    return receives(dispatch.name, intents, is_direct=dispatch.direct, is_own=dispatch.own)


def trimmed(dispatch: Dispatch, intents: int, bot_id: str) -> Json:
    """Return the dispatch's `d` as a session with these intents sees it: without MESSAGE_CONTENT, no content; without
    GUILD_PRESENCES, no presence of who was added to a thread.
    """
    d = dispatch.d
    if dispatch.name == "THREAD_MEMBERS_UPDATE" and not intents & Intents.GUILD_PRESENCES:
        return {**d, "added_members": [{**each, "presence": None} for each in d["added_members"]]}
    if intents & Intents.MESSAGE_CONTENT:
        return d
    if dispatch.name in MESSAGES and not dispatch.revealed:
        return without_content(d, bot_id)
    if dispatch.name == "AUTO_MODERATION_ACTION_EXECUTION":
        return {**d, **dict.fromkeys(EXECUTION_CONTENT, "")}
    return d


def without_content(d: Json, bot_id: str) -> Json:
    """Return a message without what MESSAGE_CONTENT reveals: texts and lists are empty, the poll is left out. A message
    inside it is shown when it is the bot's own or mentions it.
    """
    bare: Json = {key: CONTENT.get(key, value) for key, value in d.items() if key not in CONTENT_OMITTED}
    if isinstance(referenced := bare.get("referenced_message"), dict):
        bare["referenced_message"] = _inner(referenced, bot_id)
    if snapshots := bare.get("message_snapshots"):
        bare["message_snapshots"] = [{"message": _inner(each["message"], bot_id)} for each in snapshots]
    return bare


def _inner(d: Json, bot_id: str) -> Json:
    people = (d.get("author"), *d.get("mentions", ()))
    is_shown = any(user["id"] == bot_id for user in people if user is not None)
    return d if is_shown else without_content(d, bot_id)
