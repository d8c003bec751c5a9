"""Changes in voice: members join, mute and leave; stages; sounds; a channel's status; the bot's own voice state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import SPOKEN, STAGE, VOICE
from rateway_simulator.payloads.values import Json, noise
from rateway_simulator.world.changes.members import bits_of, member_of
from rateway_simulator.world.dispatch import Chance, Dispatch
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Changes


def set_voice(world: World, guild: Guild, user_id: str, channel_id: str | None, **fields: Any) -> None:
    """A user's voice state: another channel (None: out of voice), mutes and the like."""
    old = guild.voice_states.get(user_id)
    if old is None:
        if channel_id is None:
            return
        session = f"{noise(int(user_id), int(world.wall * 1000)):032x}"
        old = payloads.voice_state(channel_id, user_id, session)
    elif old["channel_id"] != channel_id:
        guild.participants.get(old["channel_id"], set()).discard(user_id)
    now = {**old, **fields, "channel_id": channel_id}
    if channel_id is None:
        guild.voice_states.pop(user_id, None)
    else:
        guild.voice_states[user_id] = now
        guild.participants.setdefault(channel_id, set()).add(user_id)
    d = {**now, "guild_id": guild.id}
    member = member_of(world, guild, user_id)
    if member is not None:
        d["member"] = member
    world.emit("VOICE_STATE_UPDATE", guild, d)


def own_voice(world: World, guild: Guild, request: Json) -> None:
    """Op 4: the bot's own voice state, and the server to speak with when it joins or moves."""
    channel_id = request.get("channel_id")
    if channel_id is not None:
        channel_id = str(channel_id)
        if guild.channels.get(channel_id, {}).get("type") not in SPOKEN:
            return
    before = guild.voice_states.get(world.bot_id)
    set_voice(
        world,
        guild,
        world.bot_id,
        channel_id,
        self_mute=bool(request.get("self_mute")),
        self_deaf=bool(request.get("self_deaf")),
    )
    if channel_id is not None and (before is None or before["channel_id"] != channel_id):
        voice_server(world, guild)


def voice_server(world: World, guild: Guild) -> None:
    """Send the address for the bot's voice connection; no server is there."""
    token = f"{noise(guild.number, int(world.wall * 1000)):016x}"
    endpoint = f"voice-{guild.index % 100}.invalid:443"
    world.emit("VOICE_SERVER_UPDATE", guild, {"token": token, "guild_id": guild.id, "endpoint": endpoint})


def set_info(world: World, guild: Guild, channel_id: str, **fields: Any) -> None:
    """A voice channel's `status` or `voice_start_time`."""
    guild.info[channel_id] = {**guild.info.get(channel_id, {}), **fields}
    where = {"id": channel_id, "guild_id": guild.id}
    if "status" in fields:
        world.emit("VOICE_CHANNEL_STATUS_UPDATE", guild, {**where, "status": fields["status"]})
    if "voice_start_time" in fields:
        d = {**where, "voice_start_time": fields["voice_start_time"]}
        world.emit("VOICE_CHANNEL_START_TIME_UPDATE", guild, d)


def channel_info(guild: Guild, fields: Iterable[str]) -> Dispatch:
    """Return the answer to op 43: the fields asked for, of each voice channel that has any."""
    wanted = [name for name in ("status", "voice_start_time") if name in fields]
    channels = [
        {"id": channel_id, **{name: info.get(name) for name in wanted}}
        for channel_id, info in guild.info.items()
    ]
    return Dispatch("CHANNEL_INFO", guild.number, {"guild_id": guild.id, "channels": channels})


def open_stage(world: World, guild: Guild, channel_id: str, topic: str) -> Json:
    """Start a stage."""
    stage_id = world.snowflake()
    d = guild.stages[stage_id] = payloads.stage_instance(stage_id, guild.id, channel_id, topic)
    world.emit("STAGE_INSTANCE_CREATE", guild, d)
    return d


# Chance


def _voice_channels(guild: Guild) -> list[str]:
    return [key for key, d in guild.channels.items() if d["type"] in SPOKEN]


def _state_update(world: World, guild: Guild, chance: Chance) -> None:
    channels = _voice_channels(guild)
    states = guild.voice_states
    draw = chance.random()
    if not channels:
        return
    channel_id = channels[int(chance.random() * len(channels))]
    speakers = [user_id for user_id in states if user_id != world.bot_id]
    if not speakers or (draw < 0.35 and len(speakers) < 40):
        index = guild.roster.pick(chance)
        if index is not None:
            set_voice(world, guild, world.people.id_of(index), channel_id)
        return
    user_id = speakers[int(chance.random() * len(speakers))]
    now = states[user_id]
    if draw < 0.6:
        set_voice(world, guild, user_id, now["channel_id"], self_mute=not now["self_mute"])
    elif draw < 0.66:
        stream = not now["self_stream"]
        set_voice(world, guild, user_id, now["channel_id"], self_stream=stream, self_video=stream)
    elif draw < 0.7:
        set_voice(world, guild, user_id, channel_id, suppress=guild.channels[channel_id]["type"] == STAGE)
    else:
        set_voice(world, guild, user_id, None)


def _effect_send(world: World, guild: Guild, chance: Chance) -> None:
    for channel_id, people in guild.participants.items():
        if not people:
            continue
        bits = bits_of(chance)
        d: Json = {"channel_id": channel_id, "guild_id": guild.id, "user_id": min(people)}
        d |= {
            # py-cord reads `animated` of every emoji.
            "emoji": {"id": None, "name": payloads.UNICODE[bits % 8], "animated": False},
            "animation_type": bits & 1,
            "animation_id": 3,
        }
        if bits & 2:
            # Default sounds have small integers, a guild's own have snowflakes.
            own = next(iter(guild.sounds), None)
            d |= {"sound_id": 1 if own is None or bits & 4 else own, "sound_volume": 0.8}
        world.emit("VOICE_CHANNEL_EFFECT_SEND", guild, d)
        return


def _status_update(world: World, guild: Guild, chance: Chance) -> None:
    # A stage says what it is about by its instance's topic: libraries know no status of it.
    channels = [key for key, d in guild.channels.items() if d["type"] == VOICE]
    if channels:
        bits = bits_of(chance)
        status = None if bits & 3 == 0 else f"playing round {bits % 100}"
        set_info(world, guild, channels[bits % len(channels)], status=status)


def _start_time_update(world: World, guild: Guild, chance: Chance) -> None:
    channels = _voice_channels(guild)
    if channels:
        bits = bits_of(chance)
        start = None if bits & 3 == 0 else int(world.wall)
        set_info(world, guild, channels[bits % len(channels)], voice_start_time=start)


def _server_update(world: World, guild: Guild, chance: Chance) -> None:
    """The bot is moved to another voice server if it is in voice; otherwise it joins or is called."""
    if world.bot_id in guild.voice_states:
        if chance.random() < 0.2:
            # The server is lost; the next one follows (docs: Voice Server Update).
            lost = {"token": "0" * 16, "guild_id": guild.id, "endpoint": None}
            world.emit("VOICE_SERVER_UPDATE", guild, lost)
        voice_server(world, guild)
        return
    channel_id = next((key for key, d in guild.channels.items() if d["type"] == VOICE), None)
    if channel_id is not None:
        own_voice(world, guild, {"channel_id": channel_id})


def _stage_create(world: World, guild: Guild, chance: Chance) -> None:
    busy = {d["channel_id"] for d in guild.stages.values()}
    for channel_id, d in guild.channels.items():
        if d["type"] == STAGE and channel_id not in busy:
            open_stage(world, guild, channel_id, f"Topic {bits_of(chance) % 100}")
            return


def _stage_update(world: World, guild: Guild, chance: Chance) -> None:
    for stage_id, d in guild.stages.items():
        now = guild.stages[stage_id] = {**d, "topic": f"Topic {bits_of(chance) % 100}"}
        world.emit("STAGE_INSTANCE_UPDATE", guild, now)
        return


def _stage_delete(world: World, guild: Guild, chance: Chance) -> None:
    for stage_id in list(guild.stages):
        d = guild.stages.pop(stage_id)
        world.emit("STAGE_INSTANCE_DELETE", guild, d)
        if chance.random() < 0.2:
            # Discord repeats it when a scheduled event hung on the stage.
            world.emit("STAGE_INSTANCE_DELETE", guild, d)
        return


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "VOICE_STATE_UPDATE": _state_update,
    "VOICE_CHANNEL_EFFECT_SEND": _effect_send,
    "VOICE_CHANNEL_STATUS_UPDATE": _status_update,
    "VOICE_CHANNEL_START_TIME_UPDATE": _start_time_update,
    "VOICE_SERVER_UPDATE": _server_update,
    "STAGE_INSTANCE_CREATE": _stage_create,
    "STAGE_INSTANCE_UPDATE": _stage_update,
    "STAGE_INSTANCE_DELETE": _stage_delete,
}
