"""Words about people: known once learned, gone once forgotten, in bounded memory."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from rateway.cache.echoes import Echoes

PEOPLE = st.integers(0, 40).map(lambda number: number << 22)
WORDS = st.integers(0, 6)


@given(st.lists(st.tuples(st.sampled_from(["learn", "forget", "all", "ask"]), PEOPLE, WORDS), max_size=300))
def test_what_is_known_was_learned_and_not_forgotten_since(steps: list[tuple[str, int, int]]) -> None:
    echoes, true = Echoes(), set[tuple[int, int]]()
    for step, user_id, words in steps:
        mark = hash((1, user_id, b"%d" % words))
        if step == "learn":
            echoes.learn(user_id, (mark,))
            true.add((user_id, mark))
            assert echoes.known(user_id, mark)
        elif step == "forget":
            echoes.forget(user_id)
            true = {known for known in true if known[0] != user_id}
        elif step == "all":
            echoes.forget_all()
            true.clear()
        assert not echoes.known(user_id, mark) or (user_id, mark) in true


def test_most_of_what_many_people_say_stays_known_while_the_table_grows() -> None:
    chance = random.Random(7)
    echoes = Echoes()
    people = [chance.randrange(1 << 58, 1 << 60) for _ in range(20_000)]
    known = 0
    for _ in range(3):
        known = 0
        for user_id in people:
            marks = [hash((place, user_id, b"words")) for place in range(3)]
            known += sum(echoes.known(user_id, mark) for mark in marks)
            echoes.learn(user_id, [mark for mark in marks if not echoes.known(user_id, mark)])
    assert known > 0.8 * 3 * len(people)


def test_the_table_is_bounded_however_much_is_said() -> None:
    chance = random.Random(8)
    echoes = Echoes()
    for _ in range(400_000):
        user_id = chance.randrange(1 << 62)
        echoes.learn(user_id, (hash(user_id),))
    assert len(echoes._prints) <= 1 << 20
    user_id = chance.randrange(1 << 62)
    echoes.learn(user_id, (5,))
    assert echoes.known(user_id, 5)
    echoes.forget(user_id)
    assert not echoes.known(user_id, 5)
