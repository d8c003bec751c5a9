"""The presence that a shard shows: a template with placeholders, filled in per shard.

The shape is Discord's own for op 3 and for the identify's ``presence`` (*Gateway Events: Update Presence*).
A malformed one is answered by Discord with an invalid session, so everything is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PresenceError", "PresenceTemplate", "digest_of", "parse_presence"]

STATUSES = ("online", "idle", "dnd", "invisible", "offline")
ACTIVITY_TYPES = {"playing": 0, "streaming": 1, "listening": 2, "watching": 3, "custom": 4, "competing": 5}
# Discord's limit for an activity's name and state.
MAX_TEXT = 128
# Of the 4,096 bytes that Discord takes in a payload, what the rest of an identify leaves.
MAX_BYTES = 3_500
# Times in milliseconds are signed 64-bit integers.
LATEST_SINCE = (1 << 63) - 1


class PresenceError(ValueError):
    """A presence that Discord would not take. Each argument says which part of it is wrong and what it should be."""


@dataclass(frozen=True, slots=True)
class PresenceTemplate:
    """A checked presence whose texts may hold ``{shard}``, ``{shards}`` and ``{cluster}``."""

    text: str
    """The presence as JSON, placeholders included."""

    def of(self, shard_id: int, shard_count: int, cluster: int) -> dict[str, object]:
        """Return the ``d`` of a presence update for one shard."""
        values = {"{shard}": str(shard_id), "{shards}": str(shard_count), "{cluster}": str(cluster)}
        presence = _filled(json.loads(self.text), values)
        assert isinstance(presence, dict)
        return presence


def digest_of(presence: PresenceTemplate | None) -> str:
    """Return a digest by which a changed setting ``PRESENCE`` is recognised; empty without one."""
    return "" if presence is None else hashlib.sha256(presence.text.encode()).hexdigest()[:16]


def _filled(value: object, values: Mapping[str, str]) -> object:
    if isinstance(value, str):
        for placeholder, number in values.items():
            value = value.replace(placeholder, number)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value


def parse_presence(given: object) -> PresenceTemplate:
    """Return a presence from JSON text, or from a table of the TOML file.

    Accepts Discord's whole form (``status``, ``activities``, ``since``, ``afk``) and a short one: ``status`` and
    ``activity`` (a text, shown as a custom status, or a table with ``name``, ``type`` as a number or a word,
    ``state``, ``url``). Raises :class:`PresenceError`.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise PresenceError(f"it is not JSON ({error})") from None
        except RecursionError:
            raise PresenceError("it is nested too deep") from None
    if not isinstance(given, dict):
        raise PresenceError("it should be a table (an object in JSON)")
    unknown = sorted(set(given) - {"status", "activity", "activities", "since", "afk"}, key=str)
    wrong = [
        f"{key!r} is not part of a presence: status, activity, activities, since, afk" for key in unknown
    ]
    status = given.get("status", "online")
    if status not in STATUSES:
        wrong.append(f"status is {status!r}, not one of {', '.join(STATUSES)}")
    since, afk = given.get("since"), given.get("afk", False)
    if since is not None and (
        isinstance(since, bool) or not isinstance(since, int) or not 0 <= since <= LATEST_SINCE
    ):
        wrong.append("since should be a number of milliseconds or null")
    if not isinstance(afk, bool):
        wrong.append("afk should be true or false")
    if "activity" in given and "activities" in given:
        wrong.append("it has both activity and activities: keep one")
    listed = [given["activity"]] if "activity" in given else given.get("activities", [])
    if not isinstance(listed, list):
        wrong.append("activities should be a list")
        listed = []
    activities = [_activity(item, wrong) for item in listed]
    if wrong:
        raise PresenceError(*wrong)
    presence = {"since": since, "activities": activities, "status": status, "afk": afk}
    # A filled placeholder is no longer than the placeholder.
    text = json.dumps(presence, ensure_ascii=False)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PresenceError("one of its texts has half of a surrogate pair: it cannot be sent") from None
    if size > MAX_BYTES:
        raise PresenceError(f"it has {size} bytes as JSON; an identify has room for {MAX_BYTES}")
    return PresenceTemplate(text)


def _activity(given: object, wrong: list[str]) -> dict[str, object]:
    """Return one activity as Discord takes it; what is wrong with it is added to *wrong*."""
    if isinstance(given, str):
        given = {"name": "Custom Status", "type": 4, "state": given}
    if not isinstance(given, dict):
        wrong.append("an activity should be a text or a table with name and type")
        return {}
    # What a bot may set; anything else Discord ignores or refuses.
    unknown = sorted(set(given) - {"name", "type", "state", "url"}, key=str)
    wrong += [f"an activity of a bot has name, type, state and url, not {key!r}" for key in unknown]
    kind = given.get("type", 0)
    if isinstance(kind, str) and kind.lower() not in ACTIVITY_TYPES:
        wrong.append(f"the activity's type is {kind!r}, not one of {', '.join(ACTIVITY_TYPES)}")
    elif isinstance(kind, str):
        kind = ACTIVITY_TYPES[kind.lower()]
    elif isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind <= 5:
        wrong.append("the activity's type should be 0 to 5, or a word such as watching")
    activity: dict[str, object] = {
        "name": given.get("name", "Custom Status" if kind == 4 else None),
        "type": kind,
    }
    for key in ("state", "url"):
        if given.get(key) is not None:
            activity[key] = given[key]
    for key, value in activity.items():
        if key == "type":
            continue
        if not isinstance(value, str) or not value:
            wrong.append(f"the activity's {key} should be a text that is not empty")
        elif key != "url" and len(value) > MAX_TEXT:
            wrong.append(f"the activity's {key} is longer than {MAX_TEXT} characters")
    return activity
