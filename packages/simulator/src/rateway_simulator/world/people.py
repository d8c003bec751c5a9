"""Everyone in the world: a user is a function of the seed and an index until something changes it.

A million people therefore cost nothing until they are touched. Ids are an arithmetic progression in
milliseconds, so that an id leads back to its index without a table.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from rateway_simulator.payloads.values import DISCORD_EPOCH_MS, Json, noise

# Accounts begin on 2015-06-01; the step is prime, so that neighbours do not share timing patterns.
_FIRST_MS = 1_433_116_800_000 - DISCORD_EPOCH_MS
_STEP_MS = 10_007

# Beyond every world's first population; those who join later begin after it.
BOT_INDEX: Final = 29_999_999
BOT_ID: Final = str((_FIRST_MS + BOT_INDEX * _STEP_MS << 22) + BOT_INDEX % 4096)
# The simulated bot's token. Libraries read the bot's id from a token's first part, in base64.
TOKEN: Final = f"{b64encode(BOT_ID.encode()).decode().rstrip('=')}.simulated.token"

_FIRST = (
    "Ada",
    "Björn",
    "Chloé",
    "Dmitri",
    "Elif",
    "Farid",
    "Grace",
    "Hana",
    "Ivo",
    "Jürgen",
    "Kofi",
    "Lin",
    "Mía",
    "Noor",
    "Omar",
    "Priya",
    "Quinn",
    "Rosa",
    "Søren",
    "Tomás",
    "Uma",
    "Vera",
    "Wei",
    "Zoë",
)
_SECOND = (
    "fox",
    "owl",
    "moss",
    "ember",
    "river",
    "stone",
    "cloud",
    "pixel",
    "comet",
    "maple",
    "raven",
    "wave",
    "spark",
    "frost",
    "dune",
    "lynx",
    "tiger",
    "sage",
    "echo",
    "nova",
)


class People:
    """Users by index; `changed` holds those that are no longer what the seed made them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.changed: dict[int, Json] = {}

    def id_of(self, index: int) -> str:
        """Return the snowflake of the user with this index."""
        return str((_FIRST_MS + index * _STEP_MS << 22) + index % 4096)

    def index_of(self, user_id: str | int) -> int | None:
        """Return the index of a user's id; None when no user has it."""
        number = int(user_id)
        index, rest = divmod((number >> 22) - _FIRST_MS, _STEP_MS)
        if rest or index < 0 or number & 0x3FFFFF != index % 4096:
            return None
        return index

    @staticmethod
    def is_bot(index: int) -> bool:
        """Return whether this user is a bot: one in 97 is, as in an average guild."""
        return index % 97 == 96

    def user(self, index: int) -> Json:
        """Return the user object as others see it. Do not change it: use `change`."""
        changed = self.changed.get(index)
        if changed is not None:
            return changed
        bits = noise(self.seed, 1, index)
        name = _FIRST[bits % 24]
        second = _SECOND[(bits >> 8) % 20]
        return {
            "id": str((_FIRST_MS + index * _STEP_MS << 22) + index % 4096),
            "username": f"{second}.{index}",
            "discriminator": "0",
            "global_name": f"{name} {second}" if bits & 0x30000 else None,
            "avatar": f"{bits:016x}{bits ^ 0x5BD1E995:016x}" if bits & 0x1C0000 else None,
            "bot": self.is_bot(index),
            "system": False,
            "banner": f"a_{bits:032x}" if bits & 0xF00000 == 0 else None,
            "accent_color": bits & 0xFFFFFF if bits & 0x7000000 == 0 else None,
            "public_flags": 64 << (bits & 3) if bits & 0xF000000 == 0 else 0,
            "avatar_decoration_data": _decoration(bits) if bits & 0xF0000000 == 0 else None,
            "collectibles": _collectibles(bits) if bits & 0xF00000000 == 0 else None,
            "primary_guild": _primary_guild(bits) if bits & 0xF000000000 == 0 else None,
        }

    def change(self, index: int, **fields: object) -> Json:
        """Change fields of a user permanently, and return the new object."""
        user = {**self.user(index), **fields}
        self.changed[index] = user
        return user


def _decoration(bits: int) -> Json:
    return {"asset": f"a_{bits:032x}", "sku_id": str(1144058844004233369 + bits % 1000), "expires_at": None}


def _collectibles(bits: int) -> Json:
    palette = ("crimson", "berry", "sky", "teal", "forest", "white")[bits % 6]
    return {
        "nameplate": {
            "sku_id": str(1349849614198505602 + bits % 100),
            "asset": f"nameplates/nameplates/{palette}/",
            "label": f"COLLECTIBLES_{palette.upper()}_A11Y",
            "palette": palette,
        }
    }


def _primary_guild(bits: int) -> Json:
    return {
        "identity_guild_id": str(197038439483310086 + (bits & 0xFFFF)),
        "identity_enabled": True,
        "tag": _SECOND[bits % 20][:4].upper(),
        "badge": f"{bits:032x}",
    }


_GAMES = (
    ("Celestial Chess", "1109"),
    ("Mushroom Racer", "2218"),
    ("Deep Mines", "3327"),
    ("Paper Empires", "4436"),
)


def presence(user: Json, status: str, bits: int, wall: float) -> Json:
    """Return a presence without `guild_id`; `bits` choose clients and activities, `wall` is in Unix seconds."""
    if status == "offline":
        return {"user": user, "status": "offline", "activities": [], "client_status": {}}
    clients = {}
    if bits & 3 != 3:
        clients["desktop"] = status
    if bits & 3:
        clients["mobile"] = status
    if bits & 0x1C == 0:
        clients["web"] = status
    if bits & 0x3E0 == 0:
        clients["vr"] = status
    return {
        "user": user,
        "status": status,
        "activities": activities(bits >> 10, wall),
        "client_status": clients,
    }


def activities(bits: int, wall: float) -> list[Json]:
    """Return none to two activities: a custom status, a game, music or a stream, with the fields each of them has."""
    kind = bits % 8
    now_ms = int(wall * 1000)
    found: list[Json] = []
    if kind in (0, 1):
        found.append(
            {
                "id": "custom",
                "name": "Custom Status",
                "type": 4,
                "created_at": now_ms,
                "state": f"thinking about {_SECOND[bits // 8 % 20]}s",
                "emoji": {"name": "🌿"}
                if bits & 8
                else {"name": "wave", "id": str(bits), "animated": bool(bits & 16)},
            }
        )
    if kind in (1, 2, 3):
        found.append(_playing(bits >> 8, now_ms))
    elif kind == 4:
        found.append(_listening(bits >> 8, now_ms))
    elif kind == 5:
        found.append(
            {
                "id": f"{bits:x}",
                "name": "Twitch",
                "type": 1,
                "url": "https://www.twitch.tv/celestial",
                "created_at": now_ms,
                "details": "Chess until dawn",
                "state": "Celestial Chess",
                "assets": {"large_image": "twitch:celestial"},
                "application_id": "1109",
                "flags": 1,
            }
        )
    return found


def _playing(bits: int, now_ms: int) -> Json:
    name, application_id = _GAMES[bits % 4]
    return {
        "id": f"{bits:x}",
        "name": name,
        "type": 0,
        "url": None,
        "created_at": now_ms,
        "timestamps": {"start": now_ms - bits % 7_200_000},
        "application_id": application_id,
        "status_display_type": bits % 3,
        "details": "Ranked",
        "details_url": "https://example.org/ranked",
        "state": "In a group",
        "state_url": None,
        "party": {"id": f"party-{bits % 999}", "size": [1 + bits % 3, 4]},
        "assets": {
            "large_image": "map_1",
            "large_text": "The first map",
            "large_url": None,
            "small_image": "rank_3",
            "small_text": "Rank 3",
            "small_url": None,
            "invite_cover_image": None,
        },
        "secrets": {"join": f"{bits:x}join"},
        "instance": True,
        "flags": 0,
        "buttons": ["Watch", "Join"],
    }


def _listening(bits: int, now_ms: int) -> Json:
    return {
        "id": "spotify:1",
        "name": "Spotify",
        "type": 2,
        "created_at": now_ms,
        "flags": 48,
        "timestamps": {"start": now_ms - 60_000, "end": now_ms + 120_000},
        "details": f"Song {bits % 500}",
        "state": f"{_FIRST[bits % 24]} & the {_SECOND[bits // 32 % 20]}s",
        "sync_id": f"{bits:022x}"[:22],
        "session_id": f"{bits:032x}",
        "party": {"id": f"spotify:{bits % 99999}"},
        "assets": {"large_image": f"spotify:ab67616d{bits:032x}", "large_text": f"Album {bits % 90}"},
    }
