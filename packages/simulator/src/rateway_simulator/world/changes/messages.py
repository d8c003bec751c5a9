"""Messages in guilds and direct channels, with typing and pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.channel_types import DIRECT, WRITABLE
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import bits_of, member_of, user_of
from rateway_simulator.world.changes.webhooks import create_webhook
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild, Message
from rateway_simulator.world.world import World

# What MESSAGE_CREATE's `member` leaves out; its `user` is the author.
_WITHOUT_USER: Final = "user"
# Of a hundred messages, how many are direct.
_DIRECT_SHARE: Final = 0.01


def open_direct(world: World, user_id: str) -> Json | None:
    """Return the direct channel with a user, made if there is none; None for a stranger."""
    user = user_of(world, user_id)
    if user is None or user_id == world.bot_id:
        return None
    direct = world.direct
    channel_id = direct.by_user.get(user_id)
    if channel_id is None:
        channel_id = direct.by_user[user_id] = world.snowflake()
        direct.channels[channel_id] = {
            "id": channel_id,
            "type": DIRECT,
            "last_message_id": None,
            "flags": 0,
            "recipients": [user],
            "last_pin_timestamp": None,
        }
    return direct.channels[channel_id]


def kept(world: World, guild: Guild | None, channel_id: str) -> dict[str, Message]:
    """Return the messages that a channel remembers, oldest first."""
    store = world.direct.messages if guild is None else guild.messages
    messages = store.get(channel_id)
    if messages is None:
        messages = store[channel_id] = {}
    return messages


def _place(world: World, guild: Guild | None, channel_id: str) -> Json | None:
    return world.direct.channels.get(channel_id) if guild is None else guild.place(channel_id)


# Changes


def create_message(
    world: World, guild: Guild | None, channel_id: str, author: Json, content: str, **fields: Any
) -> Json:
    """Post a message of a user; `guild` is None for a direct channel. Mentions are read from the content."""
    d = shapes.message(world.snowflake(), channel_id, author, content, world.now(), **fields)
    if guild is not None and "<@" in content and "mentions" not in fields:
        _mention(world, guild, d)
    return post(world, guild, d)


def post(world: World, guild: Guild | None, d: Json) -> Json:
    """Store a message and send MESSAGE_CREATE; return its `d`."""
    channel_id = d["channel_id"]
    messages = kept(world, guild, channel_id)
    message = messages[d["id"]] = Message(d)
    message.author_id = d["author"]["id"]
    if len(messages) > world.options.messages_per_channel:
        del messages[next(iter(messages))]
    place = _place(world, guild, channel_id)
    if place is None:
        return d
    place["last_message_id"] = d["id"]
    if "thread_metadata" in place and d["id"] != channel_id:
        d["position"] = place["total_message_sent"]
        message.replace(d)
        place["message_count"] += 1
        place["total_message_sent"] += 1
    own = d["author"]["id"] == world.bot_id
    if guild is None:
        event = {**d, "channel_type": DIRECT}
        world.emit("MESSAGE_CREATE", None, event, direct=True, revealed=True)
        return event
    event = {**d, "guild_id": guild.id, "channel_type": place["type"]}
    if "webhook_id" not in d:
        member = member_of(world, guild, d["author"]["id"])
        if member is not None:
            del member[_WITHOUT_USER]
            event["member"] = member
    world.emit("MESSAGE_CREATE", guild, event, revealed=own or _names_bot(world, d))
    return event


def _names_bot(world: World, d: Json) -> bool:
    return any(user["id"] == world.bot_id for user in d["mentions"])


def _mention(world: World, guild: Guild, d: Json) -> None:
    mentions, roles = [], []
    for piece in d["content"].split("<@")[1:]:
        name = piece.split(">", 1)[0]
        if name.startswith("&"):
            if name[1:] in guild.roles:
                roles.append(name[1:])
        else:
            member = member_of(world, guild, name.lstrip("!")) if name.lstrip("!").isdecimal() else None
            if member is not None:
                user = member.pop("user")
                mentions.append({**user, "member": member})
    d["mentions"], d["mention_roles"] = mentions, roles


def edit_message(
    world: World, guild: Guild | None, channel_id: str, message_id: str, **fields: Any
) -> Json | None:
    """Change a message and send MESSAGE_UPDATE in full; return None when it is not remembered."""
    message = kept(world, guild, channel_id).get(message_id)
    if message is None:
        return None
    d = {**message.d, **fields}
    message.replace(d)
    place = _place(world, guild, channel_id)
    event = {**d, "tts": False, "channel_type": DIRECT if place is None else place["type"]}
    if guild is None:
        world.emit("MESSAGE_UPDATE", None, event, direct=True, revealed=True)
        return event
    event["guild_id"] = guild.id
    if "webhook_id" not in d:
        member = member_of(world, guild, message.author_id)
        if member is not None:
            del member[_WITHOUT_USER]
            event["member"] = member
    revealed = message.author_id == world.bot_id or _names_bot(world, d)
    world.emit("MESSAGE_UPDATE", guild, event, revealed=revealed)
    return event


def where(guild: Guild | None, channel_id: str) -> Json:
    """Return the ids by which an event names its channel."""
    return {"channel_id": channel_id} if guild is None else {"channel_id": channel_id, "guild_id": guild.id}


def delete_messages(
    world: World, guild: Guild | None, channel_id: str, ids: list[str], *, bulk: bool = False
) -> None:
    """Delete messages; the event is sent for those that are not kept, too."""
    messages = kept(world, guild, channel_id)
    place = _place(world, guild, channel_id)
    for message_id in ids:
        if messages.pop(message_id, None) is not None and place is not None and "thread_metadata" in place:
            place["message_count"] = max(0, place["message_count"] - (message_id != channel_id))
    place_ids = where(guild, channel_id)
    if bulk:
        world.emit("MESSAGE_DELETE_BULK", guild, {"ids": ids, **place_ids})
        return
    for message_id in ids:
        world.emit("MESSAGE_DELETE", guild, {"id": message_id, **place_ids}, direct=guild is None)


def typing(world: World, guild: Guild | None, channel_id: str, user_id: str) -> None:
    """Send that a user starts typing."""
    d = {**where(guild, channel_id), "user_id": user_id, "timestamp": int(world.wall)}
    member = None if guild is None else member_of(world, guild, user_id)
    if member is not None:
        d["member"] = member
    world.emit("TYPING_START", guild, d, direct=guild is None)


def pin(world: World, guild: Guild | None, channel_id: str, message_id: str, *, pinned: bool) -> bool:
    """Pin or unpin a message; False when it is not remembered."""
    place = _place(world, guild, channel_id)
    if place is None or edit_message(world, guild, channel_id, message_id, pinned=pinned) is None:
        return False
    if pinned or "last_pin_timestamp" not in place:
        place["last_pin_timestamp"] = world.now()
    d = {**where(guild, channel_id), "last_pin_timestamp": place["last_pin_timestamp"]}
    world.emit("CHANNEL_PINS_UPDATE", guild, d, direct=guild is None)
    return True


# Chance


def pick_channel(guild: Guild, chance: Chance) -> Json | None:
    """Return a channel or active thread where one can write."""
    threads = guild.threads
    if threads and chance.random() < 0.2:
        return list(threads.values())[int(chance.random() * len(threads))]
    channels = list(guild.channels.values())
    for _ in range(6):
        if not channels:
            break
        channel = channels[int(chance.random() * len(channels))]
        if channel["type"] in WRITABLE:
            return channel
    return None


def pick_message(guild: Guild, chance: Chance) -> tuple[str, str] | None:
    """Return channel and id of a remembered message."""
    stores = guild.messages
    if not stores:
        return None
    channel_ids = list(stores)
    channel_id = channel_ids[int(chance.random() * len(channel_ids))]
    ids = list(stores[channel_id])
    return (channel_id, ids[int(chance.random() * len(ids))]) if ids and guild.place(channel_id) else None


def _message_create(world: World, guild: Guild, chance: Chance) -> None:
    bits = bits_of(chance)
    if chance.random() < _DIRECT_SHARE:
        _direct_message(world, guild, bits)
        return
    index = guild.roster.pick(chance)
    channel = pick_channel(guild, chance)
    if index is None or channel is None:
        return
    author = world.people.user(index)
    kind = bits & 127
    if kind < 84:
        create_message(world, guild, channel["id"], author, shapes.text(bits >> 7))
        return
    content, fields = _special(world, guild, channel, author, kind, bits >> 7, chance)
    if fields.get("webhook_id"):
        author = shapes.webhook_author(_webhook(world, guild, channel["id"]), bits)
    elif fields.pop("by_bot", False):
        author = user_of(world, world.bot_id) or author
    create_message(world, guild, channel["id"], author, content, **fields)


def _direct_message(world: World, guild: Guild, bits: int) -> None:
    if not guild.roster.count or guild.roster.first in guild.roster.removed:
        return
    user_id = world.people.id_of(guild.roster.first)
    channel = open_direct(world, user_id)
    user = user_of(world, user_id)
    if channel is not None and user is not None:
        create_message(world, None, channel["id"], user, shapes.text(bits))


def _special(
    world: World, guild: Guild, channel: Json, author: Json, kind: int, bits: int, chance: Chance
) -> tuple[str, Json]:
    """Content and further fields of the less plain messages."""
    channel_id = channel["id"]
    content = shapes.text(bits)
    if kind < 96:
        found = pick_message(guild, chance)
        old = None if found is None else guild.messages[found[0]][found[1]].d
        if old is not None and found is not None and found[0] == channel_id:
            return content, shapes.reply_to(old, guild.id)
        if old is not None and "message_snapshots" not in old:
            return "", shapes.forward_of(old, guild.id)
        return content, {}
    if kind < 104:
        other = guild.roster.pick(chance)
        target = world.bot_id if other is None or bits & 7 == 0 else world.people.id_of(other)
        role_id = list(guild.roles)[bits % len(guild.roles)]
        return f"<@{target}> {content} <@&{role_id}>", {"mention_everyone": bits & 63 == 0}
    if kind < 110:
        return content, {"attachments": [shapes.attachment(world.snowflake(), channel_id, bits)]}
    if kind == 110:
        return "", {"attachments": [shapes.voice_clip(world.snowflake(), channel_id)], "flags": 1 << 13}
    if kind < 116:
        return content, {"embeds": [shapes.embed(bits, world.wall)]}
    if kind < 118:
        return _by_webhook(world, guild, channel_id, content, bits)
    if kind < 120:
        return "", {"poll": shapes.poll(bits, world.wall)}
    if kind == 120:
        sticker = next(iter(guild.stickers.values()), None)
        keys = ("id", "name", "format_type")
        return "", {} if sticker is None else {"sticker_items": [{key: sticker[key] for key in keys}]}
    if kind < 123:
        return content, {"components": shapes.buttons(bits), "by_bot": True, "application_id": world.app.id}
    if kind == 123:
        layout = shapes.layout(bits)
        return "", {
            "components": layout,
            "flags": shapes.COMPONENTS_V2,
            "by_bot": True,
            "application_id": world.app.id,
        }
    if kind == 124:
        return "", {"type": shapes.MEMBER_JOIN}
    if kind == 125:
        return "", {"type": shapes.BOOST}
    if kind == 126:
        return content, {"activity": {"type": 1, "party_id": "party-1"}, "application": world.app.brief()}
    return content, {"tts": True, "nonce": bits % 10**15}


def _by_webhook(world: World, guild: Guild, channel_id: str, content: str, bits: int) -> tuple[str, Json]:
    webhook = _webhook(world, guild, channel_id)
    return content, {"webhook_id": webhook["id"], "embeds": [shapes.embed(bits, world.wall)]}


def _webhook(world: World, guild: Guild, channel_id: str) -> Json:
    for webhook in guild.webhooks.values():
        if webhook["channel_id"] == channel_id and webhook["type"] == 1:
            return webhook
    return create_webhook(world, guild, channel_id, "Captain Hook")


def _message_update(world: World, guild: Guild, chance: Chance) -> None:
    found = pick_message(guild, chance)
    if found is None:
        return
    bits = bits_of(chance)
    if bits & 3 == 0:
        # A link's preview was added: not an edit.
        edit_message(world, guild, *found, embeds=[shapes.embed(bits >> 2, world.wall)])
    else:
        edit_message(world, guild, *found, content=shapes.text(bits >> 2), edited_timestamp=world.now())


def _message_delete(world: World, guild: Guild, chance: Chance) -> None:
    found = pick_message(guild, chance)
    if found is not None:
        delete_messages(world, guild, found[0], [found[1]])


def _message_delete_bulk(world: World, guild: Guild, chance: Chance) -> None:
    found = pick_message(guild, chance)
    if found is None:
        return
    ids = list(guild.messages[found[0]])[-5:]
    if len(ids) >= 2:
        delete_messages(world, guild, found[0], ids, bulk=True)


def _typing_start(world: World, guild: Guild, chance: Chance) -> None:
    channel = pick_channel(guild, chance)
    index = guild.roster.pick(chance)
    if channel is not None and index is not None:
        typing(world, guild, channel["id"], world.people.id_of(index))


def _pins_update(world: World, guild: Guild, chance: Chance) -> None:
    found = pick_message(guild, chance)
    if found is not None and "last_pin_timestamp" in (guild.place(found[0]) or {}):
        pin(world, guild, *found, pinned=chance.random() < 0.7)


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "MESSAGE_CREATE": _message_create,
    "MESSAGE_UPDATE": _message_update,
    "MESSAGE_DELETE": _message_delete,
    "MESSAGE_DELETE_BULK": _message_delete_bulk,
    "TYPING_START": _typing_start,
    "CHANNEL_PINS_UPDATE": _pins_update,
}
