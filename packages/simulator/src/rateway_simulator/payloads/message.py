"""Messages in all their shapes, and what travels with them: embeds, attachments, components, polls, interactions."""

from __future__ import annotations

from typing import Any, Final

from rateway_simulator.payloads.values import Json, iso, noise

DEFAULT: Final = 0
PINNED: Final = 6
MEMBER_JOIN: Final = 7
BOOST: Final = 8
THREAD_CREATED: Final = 18
REPLY: Final = 19
COMMAND: Final = 20
POLL_RESULT: Final = 46

CROSSPOSTED: Final = 1 << 0
EPHEMERAL: Final = 1 << 6
LOADING: Final = 1 << 7
COMPONENTS_V2: Final = 1 << 15

_TEXT: Final = (
    "the quick brown fox jumps over a lazy dog while seven wizards play loud bass guitars near an old harbour and "
    "nobody minds because tomorrow is a holiday 🎉 déjà vu — “quoted” ünïcödé"
)
_WORDS: Final = tuple(_TEXT.split())


def text(bits: int) -> str:
    """Return a sentence of 1 to 24 words."""
    start = bits % len(_WORDS)
    count = 1 + (bits >> 8) % 24
    return " ".join(_WORDS[(start + place * 5) % len(_WORDS)] for place in range(count))


def message(
    message_id: str, channel_id: str, author: Json, content: str, timestamp: str, **fields: Any
) -> Json:
    """Return a message as every variant has it, without `guild_id` and `member`."""
    return {
        "id": message_id,
        "channel_id": channel_id,
        "author": author,
        "content": content,
        "timestamp": timestamp,
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "components": [],
        "pinned": False,
        "type": DEFAULT,
        "flags": 0,
        "nonce": None,
        **fields,
    }


def bare(d: Json) -> Json:
    """Return a message as others refer to it: without what only MESSAGE_CREATE adds."""
    left_out = ("guild_id", "member", "channel_type", "referenced_message", "nonce")
    return {key: value for key, value in d.items() if key not in left_out}


def reply_to(d: Json, guild_id: str | None) -> Json:
    """Return the fields that make a message an answer to `d`."""
    reference: Json = {
        "type": 0,
        "message_id": d["id"],
        "channel_id": d["channel_id"],
        "fail_if_not_exists": True,
    }
    if guild_id is not None:
        reference["guild_id"] = guild_id
    return {"type": REPLY, "message_reference": reference, "referenced_message": bare(d)}


def forward_of(d: Json, guild_id: str | None) -> Json:
    """Return the fields that make a message a forward of `d`."""
    kept = (
        "content",
        "embeds",
        "attachments",
        "timestamp",
        "edited_timestamp",
        "flags",
        "type",
        "mentions",
        "mention_roles",
        "components",
    )
    return {
        "message_reference": {
            "type": 1,
            "message_id": d["id"],
            "channel_id": d["channel_id"],
            **({"guild_id": guild_id} if guild_id else {}),
        },
        "message_snapshots": [{"message": {key: d[key] for key in kept}}],
        "flags": 1 << 14,
    }


def embed(bits: int, wall: float) -> Json:
    """Return a rich embed with every part."""
    name = f"{bits % 999}.png"
    picture = {
        "url": f"https://example.org/{name}",
        "proxy_url": f"https://proxy.example.org/{name}",
        "height": 480,
        "width": 640,
        "content_type": "image/png",
        "placeholder": "aGVsbG8=",
        "placeholder_version": 1,
        "description": None,
        "flags": 0,
    }
    return {
        "type": "rich",
        "title": text(bits)[:80],
        "description": text(bits >> 3),
        "url": "https://example.org/article",
        "color": bits & 0xFFFFFF,
        "timestamp": iso(wall),
        "image": picture,
        "thumbnail": picture,
        "footer": {"text": "The footer", "icon_url": "https://example.org/i.png", "proxy_icon_url": None},
        "author": {
            "name": "The author",
            "url": "https://example.org/a",
            "icon_url": None,
            "proxy_icon_url": None,
        },
        "provider": {"name": "Example", "url": "https://example.org"},
        "flags": 0,
        "fields": [{"name": f"field {n}", "value": text(bits >> n), "inline": n % 2 == 0} for n in range(2)],
    }


def attachment(attachment_id: str, channel_id: str, bits: int) -> Json:
    """Return a picture, or a voice message's sound."""
    name = f"picture_{bits % 99}.png"
    url = f"https://cdn.discordapp.com/attachments/{channel_id}/{attachment_id}/{name}?ex=1&is=1&hm=1"
    return {
        "id": attachment_id,
        "filename": name,
        "title": "A picture",
        "description": "What one sees",
        "size": bits % 10**6,
        "content_type": "image/png",
        "url": url,
        "proxy_url": url.replace("cdn.discordapp.com", "media.discordapp.net"),
        "height": 480,
        "width": 640,
        "placeholder": "aGVsbG8=",
        "placeholder_version": 1,
        "ephemeral": False,
        "flags": 0,
    }


def voice_clip(attachment_id: str, channel_id: str) -> Json:
    """Return the attachment of a voice message."""
    return attachment(attachment_id, channel_id, 7) | {
        "filename": "voice-message.ogg",
        "content_type": "audio/ogg",
        "duration_secs": 3.5,
        "waveform": "AAECAwQ=",
        "height": None,
        "width": None,
    }


def buttons(bits: int) -> list[Json]:
    """Return rows of buttons and select menus."""
    return [
        {
            "type": 1,
            "id": 1,
            "components": [
                {
                    "type": 2,
                    "id": 2,
                    "style": 1 + bits % 4,
                    "label": "Press",
                    "custom_id": f"press:{bits % 99}",
                    "emoji": {"id": None, "name": "👍", "animated": False},
                    "disabled": False,
                },
                {
                    "type": 2,
                    "id": 3,
                    "style": 5,
                    "label": "Read",
                    "url": "https://example.org",
                    "disabled": False,
                },
            ],
        },
        {
            "type": 1,
            "id": 4,
            "components": [
                {
                    "type": 3,
                    "id": 5,
                    "custom_id": "choose",
                    "placeholder": "Choose",
                    "min_values": 1,
                    "max_values": 1,
                    "options": [
                        {"label": "One", "value": "1", "description": "First", "default": False},
                        {"label": "Two", "value": "2", "description": "Second", "default": True},
                    ],
                    "disabled": False,
                },
            ],
        },
    ]


def layout(bits: int) -> list[Json]:
    """Return components of the second version, for messages with flag 1 << 15."""
    media = {
        "url": "https://example.org/p.png",
        "proxy_url": "https://proxy.example.org/p.png",
        "height": 480,
        "width": 640,
        "content_type": "image/png",
        "loading_state": 2,
    }
    return [
        {
            "type": 17,
            "id": 1,
            "accent_color": bits & 0xFFFFFF,
            "spoiler": False,
            "components": [
                {"type": 10, "id": 2, "content": text(bits)},
                {"type": 14, "id": 3, "divider": True, "spacing": 1},
                {
                    "type": 9,
                    "id": 4,
                    "components": [{"type": 10, "id": 5, "content": text(bits >> 2)}],
                    "accessory": {
                        "type": 11,
                        "id": 6,
                        "media": media,
                        "description": "What one sees",
                        "spoiler": False,
                    },
                },
                {"type": 12, "id": 7, "items": [{"media": media, "description": None, "spoiler": False}]},
            ],
        },
    ]


def poll(bits: int, wall: float) -> Json:
    """Return a poll with two to four answers and no votes."""
    answers = [
        {"answer_id": n, "poll_media": {"text": f"answer {n}", "emoji": {"id": None, "name": "👍"}}}
        for n in range(1, 3 + bits % 3)
    ]
    return {
        "question": {"text": text(bits)[:100]},
        "answers": answers,
        "expiry": iso(wall + 86_400),
        "allow_multiselect": bool(bits & 8),
        "layout_type": 1,
        "results": {"is_finalized": False, "answer_counts": []},
    }


def webhook_author(webhook: Json, bits: int) -> Json:
    """Return the pseudo-user of a webhook's message: its id is the webhook's, its name changes from message
    to message.
    """
    return {
        "id": webhook["id"],
        "username": f"{webhook['name']} {bits % 7}",
        "discriminator": "0000",
        "global_name": None,
        "avatar": None,
        "bot": True,
        "public_flags": 0,
        "flags": 0,
        "primary_guild": None,
        "avatar_decoration_data": None,
        "collectibles": None,
    }


def reaction(emoji: Json) -> Json:
    """Return a reaction with a count of 0."""
    return {
        "count": 0,
        "count_details": {"burst": 0, "normal": 0},
        "me": False,
        "me_burst": False,
        "emoji": emoji,
        "burst_colors": [],
    }


def emoji_key(emoji: Json) -> str:
    """Return the key of a message's reactions: the emoji's id, or its name."""
    return str(emoji["id"] or emoji["name"])


def interaction(
    interaction_id: str, application_id: str, kind: int, data: Json, token: str, **fields: Any
) -> Json:
    """Return an interaction; `kind` 2 is a command, 3 a component, 4 autocompletion, 5 a modal."""
    return {
        "id": interaction_id,
        "application_id": application_id,
        "type": kind,
        "data": data,
        "token": token,
        "version": 1,
        "app_permissions": "2248473465835073",
        "locale": "en-US",
        "entitlements": [],
        "authorizing_integration_owners": {},
        "context": 0,
        "attachment_size_limit": 10_485_760,
        **fields,
    }


def interaction_marks(source: Json) -> Json:
    """`interaction_metadata`, and `interaction` where a command was used, for a message that answers it."""
    user = source["member"]["user"] if "member" in source else source["user"]
    marks: Json = {
        "interaction_metadata": {
            "id": source["id"],
            "type": source["type"],
            "user": user,
            "authorizing_integration_owners": source["authorizing_integration_owners"],
        },
    }
    if source["type"] == 2:
        name = source["data"]["name"]
        marks["interaction_metadata"] |= {"name": name, "command_type": source["data"]["type"]}
        marks["interaction"] = {"id": source["id"], "type": 2, "name": name, "user": user}
    if "message" in source:
        marks["interaction_metadata"]["interacted_message_id"] = source["message"]["id"]
    return marks


def interaction_token(interaction_id: str) -> str:
    """Return the token that answers an interaction."""
    return f"aW50ZXJhY3Rpb246{interaction_id}{noise(int(interaction_id)):x}"
