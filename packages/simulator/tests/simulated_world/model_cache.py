"""A cache as plain as possible: what the documentation says each event does, in dictionaries.

It knows nothing of the simulator. Fed with GUILD_CREATEs and every event after, it must end as the world is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

_LISTS = (
    "roles",
    "emojis",
    "stickers",
    "channels",
    "threads",
    "voice_states",
    "members",
    "presences",
    "stage_instances",
    "guild_scheduled_events",
    "soundboard_sounds",
)


class ModelCache:
    """Kinds and keys as in the simulator's `/simulator/world`."""

    def __init__(self, bot_id: str) -> None:
        self.bot_id = bot_id
        kinds = (
            "guild",
            "channel",
            "thread",
            "role",
            "emoji",
            "sticker",
            "sound",
            "member",
            "presence",
            "voice_state",
            "stage_instance",
            "scheduled_event",
            "integration",
            "channel_info",
            "message",
            "unavailable",
        )
        self.kinds: dict[str, dict[str, Json]] = {kind: {} for kind in kinds}
        self.users: dict[str, Json] = {}
        # Archived thread → its parent, whose deletion takes the thread's messages.
        self.archived: dict[str, str] = {}

    def apply(self, name: str, d: Json) -> None:
        """One event; the names without a method of their own change nothing."""
        d = json.loads(json.dumps(d))
        handler: Callable[[Json], None] | None = getattr(self, "_" + name.lower(), None)
        if handler is not None:
            handler(d)

    def state(self) -> dict[str, dict[str, Json]]:
        """What is known, members with their users."""
        members = {}
        for key, member in self.kinds["member"].items():
            members[key] = {**member, "user": self.users[key.split(":")[1]]}
        return {**self.kinds, "member": members}

    def _drop(self, kind: str, fits: Callable[[str, Json], bool]) -> None:
        entities = self.kinds[kind]
        for key in [key for key, entity in entities.items() if fits(key, entity)]:
            del entities[key]

    def _set_all(self, kind: str, guild_id: str, entities: list[Json], name: str = "id") -> None:
        self._drop(kind, lambda _, entity: entity.get("guild_id") == guild_id)
        for entity in entities:
            self.kinds[kind][entity[name]] = {**entity, "guild_id": guild_id}

    def _member(self, guild_id: str, member: Json) -> None:
        user = member.pop("user")
        self.users[user["id"]] = user
        key = f"{guild_id}:{user['id']}"
        self.kinds["member"][key] = {**self.kinds["member"].get(key, {}), **member, "guild_id": guild_id}

    def _presence(self, guild_id: str, presence: Json) -> None:
        key = f"{guild_id}:{presence['user']['id']}"
        if presence["status"] == "offline":
            self.kinds["presence"].pop(key, None)
            return
        user = {"id": presence["user"]["id"]}
        self.kinds["presence"][key] = {**presence, "guild_id": guild_id, "user": user}

    # Guilds

    def _forget(self, guild_id: str) -> None:
        channels = {key for key, d in self.kinds["channel"].items() if d["guild_id"] == guild_id}
        channels |= {key for key, d in self.kinds["thread"].items() if d["guild_id"] == guild_id}
        for kind in self.kinds:
            self._drop(kind, lambda key, d: d.get("guild_id") == guild_id or key == guild_id)
        self._drop("message", lambda key, _: key.split(":")[0] in channels)

    def _guild_create(self, d: Json) -> None:
        if d.get("unavailable"):
            self.kinds["unavailable"][d["id"]] = {"id": d["id"], "unavailable": True}
            return
        guild_id = d["id"]
        lists = {key: d.pop(key) for key in _LISTS}
        self.kinds["unavailable"].pop(guild_id, None)
        d.pop("unavailable", None)
        self.kinds["guild"][guild_id] = d
        for kind, name in (
            ("role", "roles"),
            ("emoji", "emojis"),
            ("sticker", "stickers"),
            ("channel", "channels"),
            ("stage_instance", "stage_instances"),
            ("scheduled_event", "guild_scheduled_events"),
        ):
            self._set_all(kind, guild_id, lists[name])
        self._set_all("thread", guild_id, lists["threads"])
        self._set_all("sound", guild_id, lists["soundboard_sounds"], "sound_id")
        for kind in ("voice_state", "member", "presence"):
            self._drop(kind, lambda _, entity: entity["guild_id"] == guild_id)
        for voice in lists["voice_states"]:
            self.kinds["voice_state"][f"{guild_id}:{voice['user_id']}"] = {**voice, "guild_id": guild_id}
        for member in lists["members"]:
            self._member(guild_id, member)
        for presence in lists["presences"]:
            self._presence(guild_id, presence)

    def _guild_update(self, d: Json) -> None:
        for kind, name in (("role", "roles"), ("emoji", "emojis"), ("sticker", "stickers")):
            self._set_all(kind, d["id"], d.pop(name))
        self.kinds["guild"][d["id"]].update(d)

    def _guild_delete(self, d: Json) -> None:
        if d.get("unavailable"):
            self.kinds["unavailable"][d["id"]] = d
        else:
            self._forget(d["id"])

    # Roles and expressions

    def _guild_role_create(self, d: Json) -> None:
        self.kinds["role"][d["role"]["id"]] = {**d["role"], "guild_id": d["guild_id"]}

    _guild_role_update = _guild_role_create

    def _guild_role_delete(self, d: Json) -> None:
        role_id = d["role_id"]
        self.kinds["role"].pop(role_id, None)
        for kind in ("member", "emoji"):
            for entity in self.kinds[kind].values():
                if entity["guild_id"] == d["guild_id"]:
                    entity["roles"] = [r for r in entity["roles"] if r != role_id]

    def _guild_emojis_update(self, d: Json) -> None:
        self._set_all("emoji", d["guild_id"], d["emojis"])

    def _guild_stickers_update(self, d: Json) -> None:
        self._set_all("sticker", d["guild_id"], d["stickers"])

    def _guild_soundboard_sound_create(self, d: Json) -> None:
        self.kinds["sound"][d["sound_id"]] = d

    _guild_soundboard_sound_update = _guild_soundboard_sound_create

    def _guild_soundboard_sound_delete(self, d: Json) -> None:
        self.kinds["sound"].pop(d["sound_id"], None)

    def _guild_soundboard_sounds_update(self, d: Json) -> None:
        for sound in d["soundboard_sounds"]:
            self._guild_soundboard_sound_create(sound)

    # Channels and threads

    def _channel_create(self, d: Json) -> None:
        self.kinds["channel"][d["id"]] = d

    _channel_update = _channel_create

    def _channel_delete(self, d: Json) -> None:
        gone = {d["id"]} | {key for key, t in self.kinds["thread"].items() if t["parent_id"] == d["id"]}
        gone |= {key for key, parent_id in self.archived.items() if parent_id == d["id"]}
        for kind in ("channel", "thread", "channel_info"):
            for key in gone:
                self.kinds[kind].pop(key, None)
        self._drop("message", lambda key, _: key.split(":")[0] in gone)
        for kind in ("stage_instance", "scheduled_event", "voice_state"):
            self._drop(kind, lambda _, entity: entity["channel_id"] == d["id"])

    def _channel_pins_update(self, d: Json) -> None:
        place = self.kinds["channel"].get(d["channel_id"]) or self.kinds["thread"].get(d["channel_id"])
        if place is not None:
            place["last_pin_timestamp"] = d["last_pin_timestamp"]

    def _voice_channel_status_update(self, d: Json) -> None:
        self.kinds["channel_info"].setdefault(d["id"], {}).update(d)

    _voice_channel_start_time_update = _voice_channel_status_update

    def _thread_create(self, d: Json) -> None:
        if d.pop("newly_created", False):
            parent = self.kinds["channel"][d["parent_id"]]
            if parent["type"] in (15, 16):
                parent["last_message_id"] = d["id"]
        self.kinds["thread"][d["id"]] = d

    def _thread_update(self, d: Json) -> None:
        if d["thread_metadata"]["archived"]:
            self.kinds["thread"].pop(d["id"], None)
            self.archived[d["id"]] = d["parent_id"]
            return
        old = self.kinds["thread"].get(d["id"], {})
        if "member" in old:
            d["member"] = old["member"]
        self.kinds["thread"][d["id"]] = d

    def _thread_delete(self, d: Json) -> None:
        self.kinds["thread"].pop(d["id"], None)
        self._drop("message", lambda key, _: key.split(":")[0] == d["id"])

    def _thread_list_sync(self, d: Json) -> None:
        parents = d.get("channel_ids")
        self._drop(
            "thread",
            lambda _, t: t["guild_id"] == d["guild_id"] and (parents is None or t["parent_id"] in parents),
        )
        for thread in d["threads"]:
            self.kinds["thread"][thread["id"]] = thread
        for member in d["members"]:
            self.kinds["thread"][member["id"]]["member"] = member

    def _thread_member_update(self, d: Json) -> None:
        del d["guild_id"]
        thread = self.kinds["thread"].get(d["id"])
        if thread is not None:
            thread["member"] = d

    def _thread_members_update(self, d: Json) -> None:
        thread = self.kinds["thread"].get(d["id"])
        if thread is None:
            return
        thread["member_count"] = d["member_count"]
        if self.bot_id in d["removed_member_ids"]:
            thread.pop("member", None)

    # People

    def _guild_member_add(self, d: Json) -> None:
        guild_id = d.pop("guild_id")
        if f"{guild_id}:{d['user']['id']}" not in self.kinds["member"]:
            self.kinds["guild"][guild_id]["member_count"] += 1
        self._member(guild_id, d)

    def _guild_member_update(self, d: Json) -> None:
        self._member(d.pop("guild_id"), d)

    def _guild_member_remove(self, d: Json) -> None:
        key = f"{d['guild_id']}:{d['user']['id']}"
        for kind in ("member", "presence", "voice_state"):
            self.kinds[kind].pop(key, None)
        self.kinds["guild"][d["guild_id"]]["member_count"] -= 1

    def _presence_update(self, d: Json) -> None:
        self._presence(d["guild_id"], d)

    def _voice_state_update(self, d: Json) -> None:
        d.pop("member", None)
        key = f"{d['guild_id']}:{d['user_id']}"
        if d["channel_id"] is None:
            self.kinds["voice_state"].pop(key, None)
        else:
            self.kinds["voice_state"][key] = d

    def _user_update(self, d: Json) -> None:
        known = self.users.setdefault(d["id"], {})
        known.update({key: value for key, value in d.items() if key in known})

    # Stages, scheduled events, integrations

    def _stage_instance_create(self, d: Json) -> None:
        self.kinds["stage_instance"][d["id"]] = d

    _stage_instance_update = _stage_instance_create

    def _stage_instance_delete(self, d: Json) -> None:
        self.kinds["stage_instance"].pop(d["id"], None)

    def _guild_scheduled_event_create(self, d: Json) -> None:
        if d["status"] in (3, 4):
            self._guild_scheduled_event_delete(d)
        else:
            self.kinds["scheduled_event"][d["id"]] = d

    _guild_scheduled_event_update = _guild_scheduled_event_create

    def _guild_scheduled_event_delete(self, d: Json) -> None:
        self.kinds["scheduled_event"].pop(d["id"], None)

    def _guild_scheduled_event_user_add(self, d: Json) -> None:
        self.kinds["scheduled_event"][d["guild_scheduled_event_id"]]["user_count"] += 1

    def _guild_scheduled_event_user_remove(self, d: Json) -> None:
        self.kinds["scheduled_event"][d["guild_scheduled_event_id"]]["user_count"] -= 1

    def _integration_create(self, d: Json) -> None:
        self.kinds["integration"][d["id"]] = d

    _integration_update = _integration_create

    def _integration_delete(self, d: Json) -> None:
        self.kinds["integration"].pop(d["id"], None)

    # Messages

    def _message_create(self, d: Json) -> None:
        for key in ("member", "channel_type"):
            d.pop(key, None)
        place = self.kinds["channel"].get(d["channel_id"]) or self.kinds["thread"].get(d["channel_id"])
        if place is not None:
            place["last_message_id"] = d["id"]
            if "thread_metadata" in place and d["id"] != d["channel_id"]:
                place["message_count"] += 1
                place["total_message_sent"] += 1
        self.kinds["message"][f"{d['channel_id']}:{d['id']}"] = d

    def _message_update(self, d: Json) -> None:
        for key in ("member", "channel_type", "tts"):
            d.pop(key, None)
        known = self.kinds["message"].get(f"{d['channel_id']}:{d['id']}")
        if known is not None:
            known.update(d)

    def _message_delete(self, d: Json) -> None:
        gone = self.kinds["message"].pop(f"{d['channel_id']}:{d['id']}", None)
        thread = self.kinds["thread"].get(d["channel_id"])
        if thread is not None and gone is not None and d["id"] != d["channel_id"]:
            thread["message_count"] = max(0, thread["message_count"] - 1)

    def _message_delete_bulk(self, d: Json) -> None:
        for message_id in d["ids"]:
            self._message_delete({**d, "id": message_id})

    def _reacted(self, d: Json) -> tuple[Json, Json | None]:
        message = self.kinds["message"].get(f"{d['channel_id']}:{d['message_id']}", {})
        key = d["emoji"]["id"] or d["emoji"]["name"]
        for entry in message.get("reactions", []):
            if (entry["emoji"]["id"] or entry["emoji"]["name"]) == key:
                return message, entry
        return message, None

    def _message_reaction_add(self, d: Json) -> None:
        message, entry = self._reacted(d)
        if entry is None:
            entry = {
                "count": 0,
                "count_details": {"burst": 0, "normal": 0},
                "me": False,
                "me_burst": False,
                "emoji": d["emoji"],
                "burst_colors": [],
            }
            message.setdefault("reactions", []).append(entry)
        entry["count"] += 1
        entry["count_details"]["burst" if d["burst"] else "normal"] += 1
        if d["burst"]:
            entry["burst_colors"] = d["burst_colors"]
        if d["user_id"] == self.bot_id:
            entry["me_burst" if d["burst"] else "me"] = True

    def _message_reaction_remove(self, d: Json) -> None:
        message, entry = self._reacted(d)
        if entry is None:
            return
        entry["count"] -= 1
        entry["count_details"]["burst" if d["burst"] else "normal"] -= 1
        if d["user_id"] == self.bot_id:
            entry["me"] = entry["me_burst"] = False
        if not entry["count"]:
            message["reactions"].remove(entry)
        if not message["reactions"]:
            del message["reactions"]

    def _message_reaction_remove_all(self, d: Json) -> None:
        message = self.kinds["message"].get(f"{d['channel_id']}:{d['message_id']}", {})
        message.pop("reactions", None)

    def _message_reaction_remove_emoji(self, d: Json) -> None:
        message, entry = self._reacted(d)
        if entry is not None:
            message["reactions"].remove(entry)
            if not message["reactions"]:
                del message["reactions"]

    def _vote(self, d: Json, sign: int) -> None:
        message = self.kinds["message"].get(f"{d['channel_id']}:{d['message_id']}")
        if message is None:
            return
        counts = message["poll"]["results"]["answer_counts"]
        entry = next((c for c in counts if c["id"] == d["answer_id"]), None)
        if entry is None:
            entry = {"id": d["answer_id"], "count": 0, "me_voted": False}
            counts.append(entry)
            counts.sort(key=lambda c: int(c["id"]))
        entry["count"] += sign
        if not entry["count"]:
            counts.remove(entry)

    def _message_poll_vote_add(self, d: Json) -> None:
        self._vote(d, 1)

    def _message_poll_vote_remove(self, d: Json) -> None:
        self._vote(d, -1)
