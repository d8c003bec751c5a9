"""What every event needs, compiled and plain: both say the same, and words are known only while they hold."""

from __future__ import annotations

import random
from functools import partial
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.native import objects as json_objects
from rateway.native.objects import plain

FORMS = [pytest.param(form, id=form.__name__.rpartition(".")[2]) for form in (plain, json_objects)]
form = pytest.mark.parametrize("form", FORMS)

encode = msgspec.json.encode
NAMES = st.sampled_from(["id", "user", "nick", "roles", "bot", "x", "ü", 'a"b', "user_id", ""])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 1 << 62),
    st.text(max_size=6),
    st.sampled_from(['"', "\\", "}", "{,", "ü"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=7)


def raws(found: dict[str, Any]) -> bytes:
    return encode(found)


# objects


@given(OBJECTS, OBJECTS)
def test_both_forms_compare_and_merge_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    old, new = raws(one), raws(other)
    assert json_objects.is_part_of(new, old) == plain.is_part_of(new, old)
    merged = json_objects.merge(old, new)
    assert merged == plain.merge(old, new)
    assert msgspec.json.decode(merged) == {**one, **other}
    assert json_objects.is_part_of(new, merged) is True
    assert (merged is old) == (json_objects.is_part_of(new, old))


@given(OBJECTS, st.lists(NAMES, max_size=3))
def test_both_forms_take_apart_alike(found: dict[str, Any], names: list[str]) -> None:
    raw, left = raws(found), tuple(name.encode() for name in names)
    assert json_objects.drop_fields(raw, left) == plain.drop_fields(raw, left)
    assert msgspec.json.decode(json_objects.drop_fields(raw, left)) == {
        k: v for k, v in found.items() if k not in names
    }
    for name in left:
        assert json_objects.field(raw, name) == plain.field(raw, name)
        assert json_objects.split_field(raw, name) == plain.split_field(raw, name)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"}",
        b"[]",
        b"null",
        b'{"a":1',
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":"x}',
        b'{"a":[1}',
        b'{"a\\',
        b'{"a":1}x',
    ],
)
def test_what_is_no_object_is_refused_by_both(raw: bytes) -> None:
    for one in (plain, json_objects):
        for call in (
            partial(one.is_part_of, raw, b"{}"),
            partial(one.merge, b"{}", raw),
            partial(one.drop_fields, raw, (b"a",)),
            partial(one.field, raw, b"a"),
            partial(one.split_field, raw, b"a"),
        ):
            with pytest.raises(msgspec.DecodeError):
                call()


@given(st.binary(max_size=40), OBJECTS, st.integers(0, 60), st.integers(0, 60))
def test_torn_bytes_are_read_by_neither_or_by_both(
    junk: bytes, found: dict[str, Any], start: int, end: int
) -> None:
    whole = raws(found)
    for raw in (junk, whole[start:], whole[:end], whole[:start] + junk + whole[start:]):
        outcomes: list[tuple[bytes, bytes | None] | None] = []
        for one in (plain, json_objects):
            try:
                outcomes.append((one.drop_fields(raw, (b"user",)), one.field(raw, b"id")))
            except (msgspec.DecodeError, UnicodeDecodeError):
                outcomes.append(None)
        # The compiled form looks at no value more closely than it must: what it takes, it leaves as it stands.
        assert outcomes[0] is None or outcomes[0] == outcomes[1]


def test_space_escapes_repeated_and_many_fields_are_the_plain_form_s_business() -> None:
    assert json_objects.field(b'{ "id" : 1 }', b"id") == b"1"
    assert json_objects.field(b'{"\\u0069d":1}', b"id") == b"1"
    assert json_objects.merge(b'{"a":1,"a":2}', b'{"b":3}') == b'{"a":2,"b":3}'
    many = {f"f{number}": number for number in range(300)}
    assert json_objects.merge(raws(many), b'{"f7":0}') == plain.merge(raws(many), b'{"f7":0}')
    assert json_objects.field(raws(many), b"f299") == b"299"


@given(st.dictionaries(st.integers(0, 1 << 63), OBJECTS, max_size=8), st.integers(0, 1 << 63))
def test_an_object_is_found_in_its_page_s_text(objects: dict[int, dict[str, Any]], other: int) -> None:
    text = b"\n" + b"".join(b"%d%b\n" % (number, raws(objects[number])) for number in sorted(objects))
    for number in (*objects, other):
        found = json_objects.find(text, number)
        assert found == plain.find(text, number)
        assert found == (raws(objects[number]) if number in objects else None)


PATHS = st.sampled_from([(b"id",), (b"user", b"id"), (b"sound_id",), (b"user_id",)])
IDS = st.one_of(st.integers(1, 10**19 - 1).map(str), st.integers(1, 10**6))


@st.composite
def lists(draw: st.DrawFn) -> tuple[tuple[bytes, ...], list[dict[str, Any]]]:
    """Objects, and where the id of each stands."""
    path = draw(PATHS)
    found = []
    for _ in range(draw(st.integers(0, 12))):
        item: dict[str, Any] = {**draw(OBJECTS)}
        number = draw(IDS)
        item[path[0].decode()] = number if len(path) == 1 else {**draw(OBJECTS), "id": number}
        keys = draw(st.permutations(list(item)))
        found.append({key: item[key] for key in keys})
    return path, found


@given(lists())
def test_both_forms_list_objects_by_their_ids(given_list: tuple[tuple[bytes, ...], list[Any]]) -> None:
    path, items = given_list
    raw = encode(items)
    ids, found = json_objects.list_by_id(raw, path)
    assert (ids, found) == plain.list_by_id(raw, path)

    def number(item: Any) -> int:
        return int(item[path[0].decode()] if len(path) == 1 else item["user"]["id"])

    wanted = sorted(items, key=number)
    assert ids == [number(item) for item in wanted]
    assert found == [encode(item) for item in wanted]
    assert json_objects.list_by_id(b"null", path) == plain.list_by_id(b"null", path) == ([], [])


@given(lists(), st.integers(0, 400), st.binary(max_size=3))
def test_a_torn_list_that_can_be_read_is_read_alike(
    given_list: tuple[tuple[bytes, ...], list[Any]], at: int, junk: bytes
) -> None:
    path, items = given_list
    whole = encode(items)
    for raw in (whole[:at] + junk + whole[at:], whole[:at], whole[:at] + junk):
        try:
            wanted = plain.list_by_id(raw, path)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        # The compiled form looks at no value more closely than it must: it may read what the plain one refuses.
        assert json_objects.list_by_id(raw, path) == wanted


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b"[{}]", b'[{"id":"x"}]', b'[{"id":"1"}', b'[{"id":"1"}]]', b'[{"id":"1"},]']
)
@form
def test_what_is_no_list_of_objects_with_ids_is_refused(form: ModuleType, raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        form.list_by_id(raw, (b"id",))


@given(OBJECTS, st.lists(lists(), max_size=3), st.data())
def test_both_forms_divide_alike(
    own: dict[str, Any], some: list[tuple[tuple[bytes, ...], list[Any]]], data: st.DataObject
) -> None:
    names = [b"list %d" % at for at in range(len(some))]
    paths = {name: path for name, (path, _) in zip(names, some, strict=True)}
    whole = own | {name.decode(): items for name, (_, items) in zip(names, some, strict=True)}
    whole |= {"unread": [{"x": 1}], "null": None}
    keys = data.draw(st.permutations(list(whole)))
    paths |= {b"unread": (), b"null": (b"id",), b"absent": (b"id",)}
    raw = encode({key: whole[key] for key in keys})
    rest, listings, values = json_objects.split_lists(raw, paths, (b"id", b"missing"))
    assert (rest, listings, values) == plain.split_lists(raw, paths, (b"id", b"missing"))
    left = {key: whole[key] for key in keys if key in own and key != "id"}
    assert msgspec.json.decode(rest) == left and list(msgspec.json.decode(rest)) == list(left)
    wanted = {
        name: plain.list_by_id(encode(items), path) for name, (path, items) in zip(names, some, strict=True)
    }
    assert listings == wanted
    assert values == ({b"id": encode(own["id"])} if "id" in own else {})


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"a":[}', b'{"a":[{"id":"1"}]', b'{"a":[{"x":1}]}', b'{"a":7}']
)
@form
def test_what_cannot_be_divided_is_refused(form: ModuleType, raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        form.split_lists(raw, {b"a": (b"id",)}, ())


@given(st.lists(st.tuples(st.integers(0, (1 << 64) - 1), OBJECTS.map(raws)), max_size=9), st.data())
def test_both_forms_write_the_same_page(items: list[tuple[int, bytes]], data: st.DataObject) -> None:
    ids, objects = [item[0] for item in items], [item[1] for item in items]
    start = data.draw(st.integers(0, len(items)))
    end = data.draw(st.integers(start, len(items)))
    assert json_objects.page(ids, objects, start, end) == plain.page(ids, objects, start, end)


@given(st.binary(max_size=50), st.binary(max_size=5))
def test_both_forms_put_the_same_behind_each_id(ids: bytes, tail: bytes) -> None:
    assert json_objects.append_to_each(ids, tail) == plain.append_to_each(ids, tail)


# events


def presences() -> list[dict[str, Any]]:
    user = {"id": "80351110224678912"}
    return [
        {"user": user, "guild_id": "7", "status": "online", "activities": [{"name": '"status":"offline"'}]},
        {"status": "offline", "guild_id": "7", "user": user},
        {"guild_id": "7", "user": {**user, "username": "x"}, "status": None},
        {"guild_id": 7, "user": {"id": 9}},
    ]


@pytest.mark.parametrize("event", presences())
def test_both_forms_read_presences_alike(event: dict[str, Any]) -> None:
    assert json_objects.read_presence(encode(event)) == plain.read_presence(encode(event))


@form
def test_a_presence_of_nobody_is_refused(form: ModuleType) -> None:
    for event in (
        {"guild_id": "7"},
        {"user": {"id": "1"}},
        {"guild_id": "7", "user": {}},
        {"guild_id": "x", "user": 1},
    ):
        with pytest.raises(msgspec.DecodeError):
            form.read_presence(encode(event))


GUILD, USER = 41771983423143937, 80351110224678912
PERSON = {"id": str(USER), "username": "ann", "bot": False}
MEMBER = {"nick": None, "roles": ["1"], "mute": False, "deaf": False, "joined_at": "2026-01-01"}


def told(form: ModuleType) -> Any:
    fingerprints = form.SeenFingerprints()
    fingerprints.learn_members(GUILD, [USER], [msgspec.Raw(encode({"user": PERSON, **MEMBER}))], True)
    return fingerprints


def message(author: dict[str, Any], member: dict[str, Any], **more: Any) -> bytes:
    return encode(
        {"id": "5", "channel_id": "6", "author": author, "guild_id": str(GUILD), "member": member, **more}
    )


def typing(user: dict[str, Any], member: dict[str, Any], **more: Any) -> bytes:
    return encode({"user_id": str(USER), "guild_id": str(GUILD), "member": {**member, "user": user}, **more})


@form
def test_what_a_snapshot_said_is_known_in_messages_typing_and_voice(form: ModuleType) -> None:
    fingerprints = told(form)
    assert fingerprints.message(message(PERSON, MEMBER)) == (6, 5)
    assert fingerprints.carried(typing(PERSON, MEMBER))
    without_two = {name: MEMBER[name] for name in MEMBER if name not in ("mute", "deaf")}
    fingerprints.learn_member(GUILD, USER, encode(without_two))
    assert fingerprints.carried(typing(PERSON, {**MEMBER, "mute": True, "deaf": True}), stale=True)


@form
def test_news_is_not_known(form: ModuleType) -> None:
    fingerprints = told(form)
    assert fingerprints.message(message({**PERSON, "username": "bob"}, MEMBER)) is None
    assert fingerprints.message(message(PERSON, {**MEMBER, "nick": "x"})) is None
    assert fingerprints.message(message(PERSON, MEMBER, webhook_id="3")) is None
    assert fingerprints.message(message(PERSON, MEMBER, guild_id=None)) is None
    assert not fingerprints.carried(typing({**PERSON, "bot": True}, MEMBER))
    assert not fingerprints.carried(typing(PERSON, {**MEMBER, "roles": []}))
    assert not fingerprints.carried(typing(PERSON, {**MEMBER, "mute": True}))
    assert not fingerprints.carried(typing(PERSON, {**MEMBER, "roles": []}), stale=True)
    assert not fingerprints.carried(typing(PERSON, MEMBER, guild_id=str(GUILD + 1)))
    assert not fingerprints.carried(encode({"user_id": str(USER), "guild_id": str(GUILD)}))


@form
def test_a_second_guild_s_snapshot_keeps_what_is_known_only_if_it_says_the_same_of_the_user(
    form: ModuleType,
) -> None:
    for said, known in ((PERSON, True), ({**PERSON, "avatar": "x"}, False)):
        fingerprints = told(form)
        fingerprints.learn_members(GUILD + 1, [USER], [msgspec.Raw(encode({"user": said, **MEMBER}))], True)
        assert (fingerprints.message(message(PERSON, MEMBER)) is not None) is known
    fingerprints = told(form)
    fingerprints.learn_members(
        GUILD, [USER], [msgspec.Raw(encode({"user": PERSON, **MEMBER, "nick": "x"}))], False
    )
    assert fingerprints.message(message(PERSON, MEMBER)) is None


PEOPLE = st.integers(1, 40).map(lambda number: number << 22)
WORDS = st.integers(0, 6).map(lambda number: b'{"x":%d}' % number)
STEPS = st.lists(
    st.tuples(st.sampled_from(["user", "member", "forget", "all", "ask"]), PEOPLE, WORDS), max_size=300
)


@form
@given(steps=STEPS)
def test_what_is_known_was_learned_and_not_forgotten_since(
    form: ModuleType, steps: list[tuple[str, int, bytes]]
) -> None:
    fingerprints, true = form.SeenFingerprints(), set[tuple[str, int, bytes]]()
    for step, user_id, words in steps:
        if step == "user":
            fingerprints.learn_user(user_id, words)
        elif step == "member":
            fingerprints.learn_member(GUILD, user_id, words)
        elif step.startswith("not "):
            if step == "not user":
                fingerprints.forget_user(user_id)
            else:
                fingerprints.forget_member(GUILD, user_id)
            true = {known for known in true if known[:2] != (step[4:], user_id)}
        elif step == "all":
            fingerprints.forget_all()
            true.clear()
        if step in ("user", "member"):
            true.add((step, user_id, words))
        assert not fingerprints.knows_user(user_id, words) or ("user", user_id, words) in true
        assert not fingerprints.knows_member(GUILD, user_id, words) or ("member", user_id, words) in true
        assert step != "user" or fingerprints.knows_user(user_id, words)


@form
def test_most_of_what_many_people_say_stays_known_while_the_table_grows(form: ModuleType) -> None:
    chance = random.Random(7)
    fingerprints = form.SeenFingerprints()
    people = [chance.randrange(1 << 58, 1 << 60) for _ in range(20_000)]
    for _ in range(3):
        known = 0
        for user_id in people:
            for place in (GUILD, GUILD + 1):
                if fingerprints.knows_member(place, user_id, b'{"x":1}'):
                    known += 1
                else:
                    fingerprints.learn_member(place, user_id, b'{"x":1}')
    assert known > 0.9 * 2 * len(people)


@form
def test_most_of_a_large_snapshot_is_known(form: ModuleType) -> None:
    chance = random.Random(9)
    fingerprints = form.SeenFingerprints()
    people = [chance.randrange(1 << 58, 1 << 60) for _ in range(30_000)]
    said = [msgspec.Raw(b'{"nick":null,"user":{"id":"%d"}}' % user_id) for user_id in people]
    for at in range(0, len(people), 1000):
        fingerprints.learn_members(GUILD + at, people[at : at + 1000], said[at : at + 1000], True)
    known = sum(
        fingerprints.knows_member(GUILD + at // 1000 * 1000, user_id, bytes(said[at]))
        for at, user_id in enumerate(people)
    )
    assert known > 0.85 * len(people)


@form
def test_what_is_forgotten_of_some_people_stays_known_of_others(form: ModuleType) -> None:
    chance = random.Random(10)
    fingerprints = form.SeenFingerprints()
    people = [chance.randrange(1 << 58, 1 << 60) for _ in range(15_000)]
    for user_id in people:
        fingerprints.learn_user(user_id, b'{"x":1}')
    for _ in people:
        fingerprints.forget_user(chance.randrange(1 << 60, 1 << 62))
    known = sum(fingerprints.knows_user(user_id, b'{"x":1}') for user_id in people)
    assert known > 0.98 * len(people)


@form
def test_the_table_is_bounded_however_much_is_said(form: ModuleType) -> None:
    chance = random.Random(8)
    fingerprints = form.SeenFingerprints()
    for _ in range(400_000):
        fingerprints.learn_member(GUILD, chance.randrange(1 << 62), b"{}")
    assert fingerprints.places == plain.MOST_PRINTS
    user_id = chance.randrange(1 << 62)
    fingerprints.learn_user(user_id, b"{}")
    assert fingerprints.knows_user(user_id, b"{}")
    fingerprints.forget_user(user_id)
    assert not fingerprints.knows_user(user_id, b"{}")
