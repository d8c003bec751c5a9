"""Queries of workers: the original's form to the letter, batches, lists, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.queries import (
    MAX_USER_IDS,
    QUERY_TYPES,
    MembersWanted,
    Query,
    QueryRequest,
    SnapshotFor,
    key_fault,
    parse_query,
    question,
)
from rateway_protocol.discord import intents
from rateway_protocol.discord.events import DOCUMENTED


def request(said: Any, *, has_reply_to: bool = True) -> QueryRequest:
    answer = parse_query(json.dumps(said).encode(), has_reply_to=has_reply_to)
    assert isinstance(answer, QueryRequest), answer
    return answer


def query(**said: Any) -> Query:
    (found,) = request(said).queries
    assert isinstance(found, Query), found
    return found


def fault(**said: Any) -> Fault:
    (found,) = request(said).queries
    assert isinstance(found, Fault), found
    return found


def test_the_original_worker_query_is_understood() -> None:
    answer = parse_query(
        b'{"type": "Guild", "arguments": [123], "return_routing_key": "abc"}', has_reply_to=False
    )
    assert answer == QueryRequest((Query("Guild", (123,)),), False, "abc")


# Each type of the original with its arguments, as its guide names them.
ORIGINAL = {
    "CurrentUser": 0, "GuildChannel": 1, "Emoji": 1, "Group": 1, "Guild": 1, "Member": 2, "Message": 2, "Presence": 2,
    "PrivateChannel": 1, "Role": 1, "User": 1, "VoiceChannelStates": 1, "VoiceState": 2,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), ORIGINAL.items())
def test_every_type_of_the_original_takes_its_arguments_as_integers_or_strings(name: str, count: int) -> None:
    numbers = [860338524707094538 + turn for turn in range(count)]
    wanted = Query(name, tuple(numbers))
    assert query(type=name, arguments=numbers) == wanted
    assert query(type=name, arguments=[str(number) for number in numbers]) == wanted
    if count:
        assert fault(type=name, arguments=numbers[1:]).code == ErrorCode.INVALID
    else:
        assert query(type=name) == wanted
    assert fault(type=name, arguments=[*numbers, 1]).code == ErrorCode.INVALID


@pytest.mark.parametrize("wrong", [True, 1.5, None, "x", "", "-1", -1, 2**64, [1], {"id": 1}])
def test_what_is_no_id_is_refused(wrong: object) -> None:
    assert fault(type="Guild", arguments=[wrong]).code == ErrorCode.INVALID


def test_a_slip_in_a_type_is_answered_with_the_nearest_name() -> None:
    found = fault(type="Gild", arguments=[1])
    assert found.code == ErrorCode.UNKNOWN_TYPE
    assert "Guild" in found.message
    assert fault(type=3).code == ErrorCode.INVALID


@pytest.mark.parametrize("said", [b"", b"{", b"null", b"[]", b"3", b'"Guild"', b"\xff"])
def test_a_body_that_is_no_object_is_bad_json(said: bytes) -> None:
    answer = parse_query(said, has_reply_to=True)
    assert isinstance(answer, Fault)
    assert answer.code == ErrorCode.BAD_JSON


def test_a_batch_is_answered_in_its_order_with_each_fault_in_its_place() -> None:
    answer = request(
        {"queries": [{"type": "Role", "arguments": [1]}, {"type": "Rolle"}, 3, {"type": "Stats"}]}
    )
    assert answer.batch
    kinds = [item.type if isinstance(item, Query) else item.code.value for item in answer.queries]
    assert kinds == ["Role", "unknown_type", "invalid", "Stats"]


def test_a_batch_of_one_or_none_is_answered_with_an_array() -> None:
    assert request({"queries": []}) == QueryRequest((), True, None)
    assert request({"queries": [{"type": "Stats"}]}).batch


@pytest.mark.parametrize("queries", [{}, "x", 3, None])
def test_queries_that_are_no_array_are_one_fault(queries: object) -> None:
    answer = request({"queries": queries})
    assert not answer.batch
    assert isinstance(answer.queries[0], Fault)


def test_too_much_at_once_is_refused() -> None:
    answer = request({"queries": [{"type": "Stats"}] * 1001})
    assert [item.code for item in answer.queries if isinstance(item, Fault)] == [ErrorCode.TOO_LARGE]
    huge = parse_query(b" " * 2_000_000, has_reply_to=True)
    assert isinstance(huge, Fault) and huge.code == ErrorCode.TOO_LARGE


def test_lists_are_paged_and_others_are_not() -> None:
    assert query(type="GuildMembers", arguments=[1]) == Query("GuildMembers", (1,), None, 100, None)
    wanted = Query("GuildMembers", (1,), None, 10, 42)
    assert query(type="GuildMembers", arguments=[1], limit=10, after="42") == wanted
    wrongs: list[dict[str, Any]] = [
        {"limit": 0},
        {"limit": 1001},
        {"limit": True},
        {"limit": "10"},
        {"after": "x"},
    ]
    for wrong in wrongs:
        assert fault(type="GuildMembers", arguments=[1], **wrong).code == ErrorCode.INVALID
    assert fault(type="Guild", arguments=[1], limit=3).code == ErrorCode.INVALID


def test_fields_are_names() -> None:
    assert query(type="Guild", arguments=[1], fields=["name", "owner_id"]).fields == ("name", "owner_id")
    wrongs: list[Any] = ["name", [1], ["x"] * 101, {}]
    for wrong in wrongs:
        assert fault(type="Guild", arguments=[1], fields=wrong).code == ErrorCode.INVALID


def test_a_permission_question_takes_a_channel_or_none() -> None:
    assert query(type="MemberPermissions", arguments=[1, 2]).arguments == (1, 2)
    assert query(type="MemberPermissions", arguments=[1, 2, 3]).arguments == (1, 2, 3)


@pytest.mark.checklist("H23")
@pytest.mark.parametrize(
    "key",
    ["gateway", "cache", "RATEWAY_GAP", "RATEWAY_ANYTHING", "MESSAGE_CREATE.before", "", "x" * 256, "ü" * 128,
     3, True, ["a"], *sorted(DOCUMENTED)],
)  # fmt: skip
def test_a_key_that_would_reach_somebody_else_is_refused(key: object) -> None:
    assert key_fault(key) is not None
    answer = parse_query(
        json.dumps({"type": "Stats", "return_routing_key": key}).encode(), has_reply_to=False
    )
    assert isinstance(answer, Fault)
    assert answer.code == ErrorCode.BAD_KEY


@pytest.mark.checklist("H23")
@pytest.mark.parametrize(
    "key",
    ["abc", "x" * 255, "ü" * 127, "message_create", "amq.gen-1", "00000000-0000-0000-0000-000000000000"],
)
def test_other_keys_may_be_used(key: str) -> None:
    assert key_fault(key) is None
    assert request({"type": "Stats", "return_routing_key": key}, has_reply_to=False).return_routing_key == key


def test_a_query_without_anywhere_to_answer_to_is_a_fault() -> None:
    answer = parse_query(b'{"type": "Stats"}', has_reply_to=False)
    assert isinstance(answer, Fault)
    assert answer.code == ErrorCode.NO_TARGET


def test_an_old_query_that_is_wrong_can_still_be_answered_under_its_key() -> None:
    answer = request({"type": "Gild", "return_routing_key": "abc"}, has_reply_to=False)
    assert answer.return_routing_key == "abc"
    assert isinstance(answer.queries[0], Fault)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["type", "arguments", "fields", "limit", "after", "queries", "return_routing_key"])


@given(st.dictionaries(KEYS, JSON | st.sampled_from(sorted(QUERY_TYPES))), st.booleans())
def test_whatever_is_asked_is_a_request_or_a_fault(said: dict[str, object], has_reply_to: bool) -> None:
    answer = parse_query(json.dumps(said).encode(), has_reply_to=has_reply_to)
    assert isinstance(answer, QueryRequest | Fault)


@given(st.binary(max_size=64), st.booleans())
def test_whatever_bytes_come_are_a_request_or_a_fault(body: bytes, has_reply_to: bool) -> None:
    assert isinstance(parse_query(body, has_reply_to=has_reply_to), QueryRequest | Fault)


def test_a_guild_snapshot_says_for_whom_it_is() -> None:
    assert query(type="GuildSnapshot", arguments=[1]).options == SnapshotFor(intents.ALL, 50)
    found = query(type="GuildSnapshot", arguments=[1], intents=513, large_threshold=250)
    assert found == Query("GuildSnapshot", (1,), options=SnapshotFor(513, 250))


@pytest.mark.parametrize(
    "wrong",
    [
        {"intents": -1},
        {"intents": True},
        {"intents": "513"},
        {"intents": 1 << 63},
        {"large_threshold": 49},
        {"large_threshold": 251},
        {"large_threshold": 60.0},
        {"fields": ["guild"]},
    ],
)
def test_a_wrong_option_of_a_guild_snapshot_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    found = fault(type="GuildSnapshot", arguments=[1], **wrong)
    assert found.code == ErrorCode.INVALID and name in found.message


def test_members_are_asked_for_by_the_beginning_of_a_name_or_by_ids() -> None:
    found = query(type="MembersMatching", arguments=[1], query="an", limit=5, presences=True)
    assert found.options == MembersWanted("an", 5, presences=True)
    found = query(type="MembersMatching", arguments=[1], user_ids=["7", 8, "7"])
    assert found.options == MembersWanted(user_ids=(7, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"query": "a", "user_ids": [1]},
        {"query": 1},
        {"query": "a", "limit": -1},
        {"query": "a", "limit": True},
        {"query": "", "presences": 1},
        {"user_ids": "1"},
        {"user_ids": ["x"]},
        {"user_ids": list(range(MAX_USER_IDS + 1))},
    ],
)
def test_a_wrong_search_for_members_is_refused(wrong: dict[str, Any]) -> None:
    assert fault(type="MembersMatching", arguments=[1], **wrong).code == ErrorCode.INVALID


def test_an_answer_in_parts_is_asked_for_with_reply_to_alone() -> None:
    said = {"type": "Guild", "arguments": [1], "parts": True}
    assert request(said).parts
    assert request({"queries": [said], "parts": True}).parts
    assert not request({"queries": [said]}).parts
    (found,) = request({**said, "return_routing_key": "abc"}, has_reply_to=False).queries
    assert isinstance(found, Fault) and found.code == ErrorCode.INVALID
    (found,) = request({**said, "parts": 1}).queries
    assert isinstance(found, Fault) and found.code == ErrorCode.INVALID


OPTIONS: dict[str, dict[str, Any]] = {
    "GuildSnapshot": {"intents": 3, "large_threshold": 60},
    "MembersMatching": {"query": "an", "limit": 5, "presences": True},
}


@pytest.mark.parametrize("name", QUERY_TYPES)
def test_a_query_that_is_asked_of_another_gateway_is_read_there_as_it_was_here(name: str) -> None:
    kind = QUERY_TYPES[name]
    said: dict[str, Any] = {"type": name, "arguments": list(range(1, len(kind.arguments) + 1))}
    if kind.lists:
        said |= {"limit": 7, "after": "8"}
    said |= OPTIONS.get(name, {"fields": ["id"]})
    read = query(**said)
    assert query(**question(read)) == read
    assert (
        query(**question(query(type=name, arguments=said["arguments"], **OPTIONS.get(name, {})))).fields
        is None
    )


def test_members_by_their_ids_are_asked_of_another_gateway_as_they_were_here() -> None:
    read = query(type="MembersMatching", arguments=[1], user_ids=["7", "8"])
    assert query(**question(read)) == read
