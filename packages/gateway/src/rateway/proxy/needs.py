"""What bots need of the gateway: judged once at the proxy's start, by what the gateway was given."""

from __future__ import annotations

from dataclasses import dataclass

from rateway_protocol.contract.snapshots import ClusterList
from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import Intents

__all__ = ["Judgement", "judge"]

# Without these a library takes every channel and role for one that is not there.
NEEDED_KINDS = frozenset({"channels", "roles"})
# What a bot's state follows the guilds by: without one of them it is wrong a moment after its start.
NEEDED_EVENTS = frozenset(
    {
        "GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE", "CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE",
        "GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE",
    }
)  # fmt: skip
# Of no use to a bot: made by the proxy itself, or for other clients than bots.
UNMISSED_EVENTS = frozenset({"READY", "RESUMED"})
# Kinds that GUILD_CREATE lists, and what a bot does without when they are not kept.
MISSED = {
    "members": "members, their own among them: no permissions can be computed",
    "threads": "threads that exist already",
    "thread_members": "their membership of threads",
    "emojis": "the guilds' emojis",
    "stickers": "the guilds' stickers",
    "stage_instances": "stages that are live already",
    "scheduled_events": "scheduled events that exist already",
    "soundboard_sounds": "the guilds' sounds",
    "presences": "presences at their start",
    "voice_states": "who is in a voice channel at their start",
}
# Without these intents the gateway gets no changes: the lists are those of its session's beginning.
GROWS_OLD = {
    Intents.GUILD_MEMBERS: "members and their number as they were",
    Intents.GUILD_EXPRESSIONS: "the guilds' sounds as they were",
    Intents.GUILD_SCHEDULED_EVENTS: "scheduled events as they were",
}
# Names listed in a line of the log.
MOST_NAMES = 12


@dataclass(frozen=True, slots=True)
class Judgement:
    """``refusals``: why the proxy cannot serve bots, each with a remedy; ``notes``: what bots will miss."""

    refusals: tuple[str, ...]
    notes: tuple[str, ...]


def judge(given: ClusterList) -> Judgement:
    """Judge what the gateway keeps and publishes."""
    refusals, notes = [], []
    kinds = frozenset(given.kinds)
    if not kinds:
        refusals.append(
            "the gateway's cache is off, and bots could be told of no guild: switch CACHE_ENABLED on there"
        )
    else:
        if missing := sorted(NEEDED_KINDS - kinds):
            refusals.append(
                f"the gateway's cache keeps no {' and no '.join(missing)}: add {'them' if len(missing) > 1 else 'it'} "
                "to CACHE_KINDS there"
            )
        notes += [
            f"bots will miss {words}: CACHE_KINDS of the gateway leaves out {kind}"
            for kind, words in MISSED.items()
            if kind not in kinds
        ]
    if not given.intents & Intents.GUILDS:
        refusals.append(
            "the gateway has no GUILDS intent, so that bots could be told of no guild: add it to INTENTS there"
        )
    if not given.intents & Intents.GUILD_VOICE_STATES:
        notes.append(
            "bots will not learn who is in voice: the gateway's INTENTS leave out GUILD_VOICE_STATES"
        )
    notes += [
        f"bots will find {words} when the gateway's session began: its INTENTS leave out {intent.name}"
        for intent, words in GROWS_OLD.items()
        if not given.intents & intent
    ]
    missing_events = _not_published(given)
    if needed := sorted(missing_events & NEEDED_EVENTS):
        refusals.append(
            f"the gateway does not publish {', '.join(needed)}: change EVENTS or EVENTS_EXCEPT there"
        )
    if missed := sorted(missing_events - NEEDED_EVENTS - UNMISSED_EVENTS):
        more = f" and {len(missed) - MOST_NAMES} others" if len(missed) > MOST_NAMES else ""
        names = ", ".join(missed[:MOST_NAMES])
        notes.append(
            f"bots will not get {names}{more}: EVENTS or EVENTS_EXCEPT of the gateway leaves them out"
        )
    return Judgement(tuple(refusals), tuple(notes))


def _not_published(given: ClusterList) -> frozenset[str]:
    """Events that the gateway receives, by its intents, and does not publish."""
    received = frozenset(
        name for name, event in EVENTS.items() if not event.intents or event.intents & given.intents
    )
    only = received if given.events is None else frozenset(given.events)
    # A name that is not documented may come with any intent.
    excepted = frozenset(name for name in given.events_except if name in received or name not in EVENTS)
    return (received - only) | excepted
