"""Events that nobody would write: one odd element costs itself alone, and is said."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rateway.cache.apply import Cache
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.reducers import REDUCERS
from rateway.cache.repair import EVENTS
from rateway.cache.storage import MemoryStorage
from rateway.native import objects as json_objects
from rateway.native.objects import plain
from rateway_protocol.discord.envelope import FAILURES
from tests.cache.hostile import WHOLE, apply_all, hostile, reasons_for, torn
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member, role, thread, user
from tests.cache.world_feed import EVERYTHING, Event, differences, state, stream

ANN, BEN, OTHER = 11 << 40, 12 << 40, 2 << 60
SMALL = {"guilds": 2, "members_per_guild": 6}
POLICIES = [
    EVERYTHING,
    CachePolicy(kinds=KINDS),
    CachePolicy(kinds=KINDS, members_from_events=False, activities=False),
    CachePolicy(kinds=KINDS - {"members", "threads"}, messages_per_channel=5),
    CachePolicy(kinds=KINDS, messages_per_channel=5, before=frozenset(REDUCERS)),
]


def test_what_is_read_of_every_applied_event_stands_in_the_table() -> None:
    assert EVENTS.keys() == REDUCERS.keys()


def spoilt_stream(seed: int) -> tuple[list[Event], int]:
    """A session's events of which one is hostile, and its place."""
    chance = random.Random(seed)
    _, events = stream(seed % 37, 250, **SMALL)
    by_name: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        by_name.setdefault(event[1], []).append(place)
    at = chance.choice(by_name[chance.choice(sorted(by_name))])
    seq, name, d = events[at]
    return [*events[:at], (seq, name, hostile(d, chance)), *events[at + 1 :]], at


@pytest.mark.checklist("K10")
@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 20), st.sampled_from(POLICIES))
def test_a_hostile_event_costs_no_more_than_what_cannot_be_read_of_it(seed: int, policy: CachePolicy) -> None:
    events, at = spoilt_stream(seed)
    seq, name, d = events[at]
    got, told = apply_all(events, policy)
    mended, reasons = reasons_for(name, d)
    # The same session, in which Discord has left out itself what cannot be read.
    sound = d if got.failures == {} else mended
    left = [] if sound is None else [(seq, name, sound)]
    wanted, wanted_told = apply_all([*events[:at], *left, *events[at + 1 :]], policy)
    assert differences(state(got.writer), state(wanted.writer)) == []
    if sound is not None:
        assert told == wanted_told
    # Said once, by name and reason.
    assert got.failures in ({}, {name: 1})
    assert bool(got.failures) == bool(got.unread.take_lines())
    assert all(reason for _, reason in got.unread.latest)
    if got.failures and reasons:
        assert {reason for _, reason in got.unread.latest} >= set(reasons)


@pytest.mark.checklist("K10")
def test_a_voice_state_with_an_odd_member_tells_what_was_before_it() -> None:
    policy = CachePolicy(kinds=KINDS, before=frozenset({"VOICE_STATE_UPDATE"}))
    scene = Scene(policy).start(members=[member(ANN)])
    said = {
        "guild_id": str(GUILD),
        "user_id": str(ANN),
        "channel_id": "20",
        "member": {"roles": [], "user": 1.5},
    }
    assert told(scene, "VOICE_STATE_UPDATE", said) is None
    again = told(scene, "VOICE_STATE_UPDATE", {**said, "channel_id": "21"})
    assert msgspec.json.decode(again.before)["channel_id"] == "20"
    assert scene.ids(Kind.VOICE_STATE) == [ANN]


@pytest.mark.checklist("K10")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 20))
def test_a_hostile_event_leaves_other_guilds_as_they_are(seed: int) -> None:
    events, at = spoilt_stream(seed)
    _, sound = stream(seed % 37, 250, **SMALL)
    touched = msgspec.json.decode(sound[at][2])
    mine = str(touched.get("guild_id") or touched.get("id"))
    if sound[at][1] in ("READY", "USER_UPDATE") or not at:
        return
    got, wanted = (
        of_others(state(apply_all(each)[0].writer), mine) for each in (events[: at + 1], sound[:at])
    )
    assert differences(got, wanted) == []


def of_others(found: dict[str, dict[str, Any]], mine: str) -> dict[str, dict[str, Any]]:
    """What belongs to another guild, and to it alone: no users, nothing of direct channels."""
    shared = ("user", "current_user", "message", "channel_info", "thread_member", "unavailable")
    return {
        kind: {
            key: {name: value for name, value in entity.items() if name != "user"}
            for key, entity in entities.items()
            if mine not in (key, entity.get("guild_id")) and (kind == "guild" or "guild_id" in entity)
        }
        for kind, entities in found.items()
        if kind not in shared
    }


def meant(result: Any) -> Any:
    """What the bytes in a result mean: of a name that an object has twice the last value counts, and one form leaves
    both where the other writes one."""
    if isinstance(result, bytes):
        try:
            return msgspec.json.decode(result)
        except FAILURES:
            return result
    if isinstance(result, dict):
        return {key: meant(value) for key, value in result.items()}
    if isinstance(result, tuple | list):
        return [meant(each) for each in result]
    return result


@pytest.mark.checklist("K11")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"5","user":{"id":"1"},"n":[0],"n":"idle"}',
        b'{"user":{"id":"1"},"id":"5","user":{"id":"2"},"n":1}',
        b'{"n":1,"s":3,"n":2,"s":4}',
        b'{"id":"5","id":"6"}',
    ],
)
def test_an_object_that_has_a_name_twice_means_the_last_of_them_in_both_forms(raw: bytes) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("drop_fields", (raw, (b"n",))), ("drop_fields", (raw, (b"user",))), ("field", (raw, b"user")),
        ("field", (raw, b"n")), ("merge", (raw, b'{"n":"new"}')), ("merge", (b'{"s":1,"s":2}', raw)),
        ("split_field", (raw, b"user")), ("split_field", (raw, b"n")),
        ("list_by_id", (b"[%b,%b]" % (raw, raw), (b"id",))),
        ("split_lists", (raw, {b"user": (b"id",)}, (b"s",))),
    ]  # fmt: skip
    for name, arguments in calls:
        results = []
        for form in (json_objects, plain):
            try:
                results.append(meant(getattr(form, name)(*arguments)))
            except (ValueError, msgspec.DecodeError) as error:
                results.append(type(error).__name__)
        assert results[0] == results[1], name


@pytest.mark.checklist("K11")
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 30))
@example(689)
def test_what_is_no_json_is_none_in_both_forms(seed: int) -> None:
    chance = random.Random(seed)
    odd: list[Any] = [-1.5e3, 0, None, True, False, {}, []]
    user_of = {"id": str(ANN), "name": 'a\u00fcb"\\\n'}
    whole = msgspec.json.encode({"id": "5", "user": user_of, "n": odd, "s": "idle"})
    whole = whole.replace("\u00fc".encode(), rb"\ud83d\udd25")
    raw = torn(whole, chance)
    assert json_objects.is_text(raw) == plain.is_text(raw)
    if not plain.is_text(raw):
        # The cache looks at that first, and reads no further.
        return
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("drop_fields", (raw, (b"n",))),
        ("field", (raw, b"user")),
        ("merge", (raw, b'{"s":"dnd"}')),
        ("split_field", (raw, b"user")),
        ("is_offline", (raw,)),
        ("list_by_id", (b"[%b,%b]" % (whole, raw), (b"user", b"id"))),
        ("split_lists", (raw, {b"n": (), b"user": (b"id",)}, (b"s",))),
    ]
    for name, arguments in calls:
        results = []
        for form in (json_objects, plain):
            try:
                results.append(meant(getattr(form, name)(*arguments)))
            except (ValueError, msgspec.DecodeError) as error:
                results.append(type(error) if isinstance(error, msgspec.MsgspecError) else ValueError)
        assert results[0] == results[1], (name, raw)


FORM = """
import base64, json, sys
import msgspec
from rateway.native.form import form
from tests.cache.hostile import apply_all
from tests.cache.world_feed import state
events = [(seq, name, base64.b64decode(d)) for seq, name, d in json.load(sys.stdin)]
cache, told = apply_all(events)
causes = [each and each.cause for each in told]
# The standard library's encoder does not nest as deep as what newer Pythons read.
found = [form(), state(cache.writer), sorted(cache.failures.items()), causes]
sys.stdout.write(msgspec.json.encode(found).decode())
"""


@pytest.mark.checklist("K11")
def test_both_forms_make_the_same_of_hostile_events() -> None:
    chance = random.Random(7)
    _, sound = stream(3, 1_500, **SMALL)
    events = [
        (seq, name, hostile(d, chance) if name != "READY" and chance.random() < 0.4 else d)
        for seq, name, d in sound
    ]
    document = json.dumps([(seq, name, base64.b64encode(d).decode()) for seq, name, d in events])
    found = {}
    for is_plain in ("", "1"):
        # The program imports this folder's modules, which stand in the search path of pytest alone.
        env = {**os.environ, "RATEWAY_PLAIN": is_plain, "PYTHONPATH": os.pathsep.join(sys.path)}
        if not is_plain:
            del env["RATEWAY_PLAIN"]
        made = subprocess.run(
            [sys.executable, "-c", FORM], input=document, capture_output=True, text=True, env=env
        )
        assert made.returncode == 0, made.stderr
        form, *found[is_plain] = msgspec.json.decode(made.stdout)
        assert form == "plain Python" or not is_plain
    assert differences(found[""][0], found["1"][0]) == []
    assert found[""][1:] == found["1"][1:]
    assert sum(count for _, count in found[""][1]) > 100


# by name


def told(scene: Scene, name: str, d: bytes | dict[str, Any]) -> Any:
    """Like ``Scene.tell``, for what cannot be read in full."""
    scene.seq += 1
    raw = d if isinstance(d, bytes) else msgspec.json.encode(d)
    applied = scene.cache.apply(0, scene.seq, name, raw)
    scene.cache.flush()
    return applied


ODD = [
    ("guild_scheduled_events", [None], [{"id": "61", "name": "sowing"}], Kind.SCHEDULED_EVENT, 61),
    ("emojis", [{"id": None, "name": "rose"}], [{"id": "50", "name": "rose"}], Kind.EMOJI, 50),
    ("members", [{"roles": []}], [member(ANN)], Kind.MEMBER, ANN),
    ("members", [{"user": None}, {"user": {"id": []}}], [member(ANN)], Kind.MEMBER, ANN),
    ("channels", ["text", 5, []], [channel(20)], Kind.CHANNEL, 20),
    ("channels", [{"id": "x"}, {"id": 2**64}], [channel(20)], Kind.CHANNEL, 20),
    ("threads", [{"id": -1}], [thread(30, 20)], Kind.THREAD, 30),
    ("roles", [{}], [role(40)], Kind.ROLE, 40),
    ("stickers", [True], [{"id": "51", "name": "s"}], Kind.STICKER, 51),
    ("soundboard_sounds", [{"id": "62"}], [{"sound_id": "62", "name": "s"}], Kind.SOUND, 62),
    ("stage_instances", [[{}]], [{"id": "60", "topic": "t"}], Kind.STAGE, 60),
    ("voice_states", [{"channel_id": "20"}], [{"user_id": str(ANN), "channel_id": "20"}], Kind.VOICE_STATE, ANN),
    ("presences", [{"status": "idle"}], [{"user": {"id": str(ANN)}, "status": "idle"}], Kind.PRESENCE, ANN),
]  # fmt: skip


@pytest.mark.checklist("K10")
@pytest.mark.parametrize(("name", "odd", "sound", "kind", "entity_id"), ODD)
def test_one_odd_element_of_a_guild_leaves_the_guild_and_its_neighbours(
    name: str, odd: list[Any], sound: list[Any], kind: Kind, entity_id: int
) -> None:
    scene = Scene()
    scene.ready(GUILD)
    found = {**guild(), name: [*odd, *sound, *odd]}
    assert told(scene, "GUILD_CREATE", found).cause == "start"
    assert scene.guild() is not None and entity_id in scene.ids(kind)
    assert scene.cache.failures == {"GUILD_CREATE": 1}
    lines = scene.cache.unread.take_lines()
    assert lines and all("GUILD_CREATE" in line and name in line and str(GUILD) in line for line in lines)
    assert "GUILD_CREATE" in scene.cache.unread.note()
    # The second one of its kind is counted, and not said again.
    assert told(scene, "GUILD_CREATE", found).cause == "available"
    assert scene.cache.failures == {"GUILD_CREATE": 2} and scene.cache.unread.take_lines() == []
    assert scene.cache.unread.left_out == 2 and scene.cache.unread.not_applied == 0


@pytest.mark.checklist("K10")
@pytest.mark.parametrize("odd", [None, 5, "text", {}])
@pytest.mark.parametrize("name", [row[0] for row in ODD] + ["member_count"])
def test_a_list_that_is_none_leaves_the_rest_of_the_guild(name: str, odd: Any) -> None:
    scene = Scene()
    scene.ready(GUILD)
    others = {row[0]: row[2] for row in ODD if row[0] != name}
    odd_count = {} if name == "member_count" and odd == 5 else {name: odd}
    assert told(scene, "GUILD_CREATE", {**guild(), **others, **odd_count}).cause == "start"
    for other, _, _, kind, entity_id in ODD:
        assert (entity_id in scene.ids(kind)) == (other != name)
    assert bool(scene.cache.failures) == (odd is not None and bool(odd_count))


@pytest.mark.checklist("K10")
def test_half_a_surrogate_pair_is_kept_as_a_replacement_character() -> None:
    scene = Scene()
    scene.ready(GUILD)
    raw = msgspec.json.encode(guild(members=[member(ANN, nick="@@"), member(BEN)])).replace(
        b"@@", rb"a\ud800b"
    )
    assert told(scene, "GUILD_CREATE", raw).cause == "start"
    ann = scene.child(Kind.MEMBER, ANN)
    assert ann is not None and ann["nick"] == "a\ufffdb" and BEN in scene.ids(Kind.MEMBER)
    assert scene.cache.failures == {"GUILD_CREATE": 1}


@pytest.mark.checklist("K10")
def test_a_value_nested_too_deep_is_left_out_of_its_entity() -> None:
    scene = Scene()
    scene.ready(GUILD)
    raw = msgspec.json.encode(guild(channels=[channel(20, topic="@@")]))
    # Deeper than any Python reads: 3.11 goes to about 1,000 levels, 3.13 to 10,000.
    raw = raw.replace(b'"@@"', b"[" * 300_000 + b"]" * 300_000)
    assert told(scene, "GUILD_CREATE", raw).cause == "start"
    found = scene.child(Kind.CHANNEL, 20)
    assert found is not None and found["name"] == "c"
    assert scene.cache.failures == {"GUILD_CREATE": 1}


@pytest.mark.checklist("K11")
@pytest.mark.parametrize("d", WHOLE)
@pytest.mark.parametrize("name", sorted(REDUCERS))
def test_a_d_that_is_nothing_changes_nothing_raises_nothing_and_is_said_once(name: str, d: bytes) -> None:
    scene = Scene().start(channels=[channel(20)], members=[member(ANN)])
    before = state(scene.view)
    assert told(scene, name, d) is None
    # In a replay as well.
    assert scene.cache.apply(0, scene.seq, name, d) is None
    assert differences(state(scene.view), before) == []
    nothing_wanted = d == b"{}" or d == b" {\n}\n"
    if not nothing_wanted and d != b'{\n"id": "\\ud800"}':
        assert scene.cache.failures == {name: 1}


@pytest.mark.checklist("K11")
def test_a_ready_whose_guilds_cannot_be_read_takes_no_guild_away() -> None:
    for guilds in (None, 5, [None], [{"id": str(OTHER)}, {"id": "x"}], [{"id": 2**70}]):
        scene = Scene().start()
        scene.seq = 0
        ready = {"user": user(BOT), "guilds": guilds, "session_id": "two", "shard": [0, 1]}
        applied = told(scene, "READY", ready)
        assert applied is None and scene.guild() is not None
        assert scene.cache.failures == {"READY": 1}


@pytest.mark.checklist("K12")
def test_events_that_cannot_be_read_are_counted_by_what_became_of_them() -> None:
    scene = Scene().start()
    told(scene, "CHANNEL_CREATE", {"guild_id": str(GUILD), "id": None})
    told(scene, "GUILD_MEMBERS_CHUNK", {"guild_id": str(GUILD), "members": [None, member(ANN)]})
    assert scene.cache.failures == {"CHANNEL_CREATE": 1, "GUILD_MEMBERS_CHUNK": 1}
    assert (scene.cache.unread.not_applied, scene.cache.unread.left_out) == (1, 1)
    assert ANN in scene.ids(Kind.MEMBER)
    first, second = scene.cache.unread.take_lines()
    assert "id is no id" in first and "not in the cache" in first
    assert "members[] is no object" in second and "left out" in second


def test_a_store_goes_on_with_the_account_of_the_cache_before() -> None:
    scene = Scene().start()
    told(scene, "GUILD_UPDATE", b"[]")
    again = Cache(MemoryStorage(), EVERYTHING, scene.cache.unread)
    assert again.failures == {"GUILD_UPDATE": 1}
