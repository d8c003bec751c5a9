"""How many commands of a cluster wait, by the links that they came on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from rateway.delivery.port import Message
from rateway.runtime.requests.held_commands import MOST_HELD, Held, HeldCommands
from rateway_protocol.contract.errors import ErrorCode, Fault

VOICE = 4
# What is left when the other kinds of commands have their share.
MOST_VOICE = MOST_HELD * 80 // 100


@dataclass(eq=False)
class Link:
    is_open: bool = True


def hold(held: HeldCommands, link: Link) -> Held | Fault:
    message = Message(1, "gateway", b"{}", b"", None, None, None, False, link)
    return held.hold(message, 0, VOICE, 1_000.0)


def fill(held: HeldCommands, *links: Link) -> list[Held]:
    """Hold commands, one of each link in turn, until one is refused."""
    taken: list[Held] = []
    for link in itertools.islice(itertools.cycle(links), MOST_HELD):
        found = hold(held, link)
        if isinstance(found, Fault):
            assert found.code is ErrorCode.QUEUE_FULL
            return taken
        taken.append(found)
    raise AssertionError("none was refused")


def test_commands_of_two_links_that_are_read_at_once_are_each_counted_until_their_outcome() -> None:
    held = HeldCommands()
    taken = fill(held, Link(), Link())
    assert len(taken) == len(held) == MOST_VOICE
    for left, each in enumerate(reversed(taken)):
        assert len(held) == MOST_VOICE - left
        assert held.release(each)
    assert len(held) == 0


def test_commands_of_a_link_that_has_ended_take_no_room_and_their_outcome_gives_none() -> None:
    held, ended, kept = HeldCommands(), Link(), Link()
    taken = fill(held, ended, kept)
    ended.is_open = False
    again = fill(held, Link())
    assert len(again) == MOST_VOICE - len([each for each in taken if each.message.origin is kept])
    for each in taken:
        assert held.release(each)
    assert len(held) == len(again)
