"""What each member knows of the others."""

from __future__ import annotations

from rateway.fleet.roster import GONE_AFTER_S, Announcement, Roster, TenureView


def said(*, clusters: list[TenureView] | None = None, governor: int = 0, uptime: float = 0.0) -> Announcement:
    return Announcement("1", uptime, 1, clusters or [], governor=governor)


def test_a_member_is_gone_after_its_silence_and_back_with_its_next_word() -> None:
    roster = Roster()
    roster.hear("a", said(), 0.0)
    roster.hear("b", said(), 5.0)
    assert roster.forget_gone(GONE_AFTER_S + 1) == ["a"]
    assert [each.name for each in roster.members()] == ["b"]
    roster.hear("a", said(), 20.0)
    assert [each.name for each in roster.members()] == ["a", "b"]


def test_of_two_that_say_they_own_the_same_the_greater_epoch_counts() -> None:
    roster = Roster()
    roster.hear("a", said(clusters=[TenureView(1, 4, 8, 8)], governor=2), 0.0)
    roster.hear("b", said(clusters=[TenureView(1, 3, 8, 8), TenureView(2, 9, 8, 8)], governor=7), 0.0)
    assert (roster.owner(1), roster.owner(2), roster.owner(3)) == ("a", "b", None)
    assert roster.governor() == ("b", 7)
    assert roster.unowned([1, 2, 3]) == [3]
    roster.leave("b")
    assert roster.governor() == ("a", 2) and roster.owner(2) is None


def test_ages_alone_are_no_news() -> None:
    first = said(clusters=[TenureView(1, 4, 8, 8, held_for=1.0)])
    assert said(clusters=[TenureView(1, 4, 8, 8, held_for=2.0)], uptime=1.0).shape == first.shape
    assert said(clusters=[TenureView(1, 4, 8, 7, held_for=1.0)]).shape != first.shape
