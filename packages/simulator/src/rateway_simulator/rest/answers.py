"""Answers of REST: Discord's errors by name, and the ways from a path or a body to the world."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import BodyPartReader, web
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import member_of
from rateway_simulator.world.dispatch import Dispatch
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Name → status, code, message (docs: Opcodes and Status Codes, JSON Error Codes).
ERRORS: Final = {
    "unauthorized": (401, 0, "401: Unauthorized"),
    "not_found": (404, 0, "404: Not Found"),
    "method": (405, 0, "405: Method Not Allowed"),
    "channel": (404, 10003, "Unknown Channel"),
    "guild": (404, 10004, "Unknown Guild"),
    "invite": (404, 10006, "Unknown Invite"),
    "member": (404, 10007, "Unknown Member"),
    "message": (404, 10008, "Unknown Message"),
    "role": (404, 10011, "Unknown Role"),
    "user": (404, 10013, "Unknown User"),
    "emoji": (404, 10014, "Unknown Emoji"),
    "webhook": (404, 10015, "Unknown Webhook"),
    "integration": (404, 10005, "Unknown Integration"),
    "ban": (404, 10026, "Unknown Ban"),
    "sku": (404, 10027, "Unknown SKU"),
    "entitlement": (404, 10029, "Unknown Entitlement"),
    "template": (404, 10057, "Unknown guild template"),
    "voice": (404, 10065, "Unknown Voice State"),
    "command_permissions": (404, 10066, "Unknown application command permissions"),
    "stage": (404, 10067, "Unknown Stage Instance"),
    "welcome_screen": (404, 10069, "Unknown Guild Welcome Screen"),
    "event": (404, 10070, "Unknown Guild Scheduled Event"),
    "interaction": (404, 10062, "Unknown interaction"),
    "command": (404, 10063, "Unknown application command"),
    "sticker": (404, 10060, "Unknown Sticker"),
    "sound": (404, 10097, "Unknown sound"),
    "bots": (403, 20001, "Bots cannot use this endpoint"),
    "webhooks": (400, 30007, "Maximum number of webhooks reached (15)"),
    "crossposted": (400, 40033, "This message was already crossposted"),
    "widget": (403, 50004, "Widget Disabled"),
    "vanity": (403, 50020, "This invite code is not available."),
    "channel_type": (400, 50024, "Cannot execute action on this channel type"),
    "stage_open": (400, 150006, "The Stage is already open."),
    "forum_webhook": (400, 220001, "Webhooks posted to forum channels must have a thread_name or thread_id"),
    "bulk_ban": (400, 500000, "Failed to ban users"),
    "poll": (400, 520006, "Cannot expire a non-poll message"),
    "acknowledged": (400, 40060, "Interaction has already been acknowledged."),
    "access": (403, 50001, "Missing Access"),
    "author": (403, 50005, "Cannot edit a message authored by another user"),
    "empty": (400, 50006, "Cannot send an empty message"),
    "recipient": (403, 50007, "Cannot send messages to this user"),
    "not_text": (400, 50008, "Cannot send messages in a non-text channel"),
    "permissions": (403, 50013, "Missing Permissions"),
    "token": (401, 50027, "Invalid Webhook Token"),
    "form": (400, 50035, "Invalid Form Body"),
    "archived": (400, 50083, "Thread is archived"),
    "json": (400, 50109, "The request body contains invalid JSON."),
    "unsimulated": (501, 0, "501: Not simulated"),
}


def json_answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON as Discord sends it: without a charset, for which discord.py would take it for text."""
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
    )


class Refused(Exception):
    """A request that Discord would answer with an error; `name` is one of `ERRORS`."""

    def __init__(self, name: str, errors: Json | None = None) -> None:
        super().__init__(name)
        self.status, self.code, self.message = ERRORS[name]
        self.errors = errors

    def response(self) -> web.Response:
        """Discord's body for it."""
        body: Json = {"message": self.message, "code": self.code}
        if self.errors is not None:
            body["errors"] = self.errors
        return json_answer(body, status=self.status)


def wrong(name: str, code: str, message: str) -> Refused:
    """A field of the body that is wrong, as Discord words it."""
    return Refused("form", {name: {"_errors": [{"code": code, "message": message}]}})


@dataclass(slots=True)
class Rest:
    """The state that every handler works on."""

    world: World
    dispatch: Callable[[Dispatch], None]
    # (method, route) → how often a client asked for what is not simulated.
    unsimulated: dict[tuple[str, str], int] = field(default_factory=dict)

    def flush(self) -> None:
        """Tell of all that happened, in order."""
        for dispatch in self.world.drain():
            self.dispatch(dispatch)


async def body_of(request: web.Request) -> Any:
    """Return the body in any of Discord's three forms (API Reference, "Uploading Files", "Content-Type").

    JSON; or a form, urlencoded or multipart, whose `payload_json` has it, else whose fields are it; files become
    `attachments`.
    """
    if request.content_type.startswith("multipart/"):
        return await _form(request)
    if request.content_type == "application/x-www-form-urlencoded":
        return _fields(dict((await request.post()).items()))
    raw = await request.read()
    return json_of(raw) if raw else {}


def json_of(raw: bytes | str) -> Any:
    """Return the value of JSON text; raises Refused."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("json") from None


def _fields(fields: dict[str, Any]) -> Any:
    payload = fields.pop("payload_json", None)
    return fields if payload is None else json_of(payload)


async def _form(request: web.Request) -> Any:
    fields: Json = {}
    files: list[Json] = []
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            data = await part.read(decode=True)
            if part.filename is None or part.name == "payload_json":
                fields[part.name] = data.decode("utf-8", "replace")
            else:
                files.append({"filename": part.filename, "size": len(data)})
    except ValueError:
        raise Refused("json") from None
    body = _fields(fields)
    if not isinstance(body, dict) or not files:
        return body
    answer = body.get("data")
    # The files of an interaction's first answer belong to its data.
    if isinstance(answer, dict) and "type" in body:
        return {**body, "data": {**answer, "attachments": files}}
    return {**body, "attachments": files}


async def object_of(request: web.Request) -> Json:
    """Return the body, which must be an object."""
    body = await body_of(request)
    if not isinstance(body, dict):
        raise wrong("_errors", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
    return body


def guild_of(rest: Rest, request: web.Request) -> Guild:
    """Return the guild of the path."""
    text = request.match_info["guild_id"]
    if not text.isdecimal() or not rest.world.is_available(int(text)):
        raise Refused("guild")
    return rest.world.guild(int(text))


def guild_with(rest: Rest, channel_id: str) -> tuple[Guild | None, Json]:
    """Return the guild of a channel or thread, archived ones too; None for a direct channel."""
    direct = rest.world.direct.channels.get(channel_id)
    if direct is not None:
        return None, direct
    guild = rest.world.guild_with_channel(channel_id)
    if guild is None:
        raise Refused("channel")
    channel = guild.place(channel_id) or guild.archived.get(channel_id)
    if channel is None:
        raise Refused("channel")
    return guild, channel


def channel_of(rest: Rest, request: web.Request) -> tuple[Guild | None, Json]:
    """Return the channel of the path."""
    return guild_with(rest, request.match_info["channel_id"])


def member_at(rest: Rest, guild: Guild, user_id: str) -> Json:
    """Return a member with `user`."""
    member = member_of(rest.world, guild, user_id) if user_id.isdecimal() else None
    if member is None:
        raise Refused("member")
    return member


def picture(data: object) -> str | None:
    """Return the hash of an image that came as a data URI; None for none. Raises Refused."""
    if data is None:
        return None
    if not isinstance(data, str) or not data.startswith("data:image/"):
        raise wrong("image", "IMAGE_INVALID", "Invalid image data")
    return f"{zlib.crc32(data.encode()):032x}"


def reason_of(request: web.Request) -> Json:
    """Return the reason for the audit log, from the request's header."""
    reason = request.headers.get("X-Audit-Log-Reason")
    return {} if not reason else {"reason": unquote(reason)[:512]}


def whole(request: web.Request, name: str, default: int, most: int) -> int:
    """Return a whole number of the query, from 1 to `most`."""
    text = request.query.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise wrong(name, "NUMBER_TYPE_MAX", f"int value should be between 1 and {most}.")
    return int(text)
