"""Which shard belongs to which cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.fleet.layout import Layout, LayoutError, parse_clusters

SIZES = st.integers(min_value=1, max_value=3_000)


@given(SIZES, st.integers(min_value=1, max_value=64))
def test_every_shard_belongs_to_exactly_one_cluster(shards: int, per_cluster: int) -> None:
    layout = Layout(shards, per_cluster)
    listed = [shard for cluster in layout.clusters for shard in layout.shards_of(cluster)]
    assert listed == list(range(shards))
    assert all(layout.cluster_of(shard) == shard // per_cluster + 1 for shard in (0, shards // 2, shards - 1))
    assert all(shard in layout.shards_of(layout.cluster_of(shard)) for shard in (0, shards // 2, shards - 1))
    assert len(layout.clusters) == -(-shards // per_cluster)


def test_the_last_cluster_holds_what_is_left() -> None:
    layout = Layout(19, 8)
    assert list(layout.clusters) == [1, 2, 3]
    assert layout.shards_of(3) == range(16, 19)


def test_shards_and_clusters_outside_are_refused() -> None:
    layout = Layout(4, 2)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="no shard"):
            layout.cluster_of(wrong)
    for wrong in (0, 3):
        with pytest.raises(ValueError, match="no cluster"):
            layout.shards_of(wrong)
    for shards, per_cluster in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Layout(shards, per_cluster)


@pytest.mark.parametrize(
    ("text", "clusters"),
    [
        ("1-4,7", {1, 2, 3, 4, 7}),
        (" 2 , 3 - 4 ", {2, 3, 4}),
        ("5", {5}),
        ("1-2,2-3", {1, 2, 3}),
        ("", set(range(1, 9))),
    ],
)
def test_a_list_of_clusters_is_read(text: str, clusters: set[int]) -> None:
    assert parse_clusters(text, 8) == clusters


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("0", "numbered from 1"),
        ("4-2", "backwards"),
        ("9", "no cluster 9"),
        ("1-9", "no cluster 9"),
        ("one", "neither"),
        ("1,,2", "neither"),
        ("-3", "neither"),
        ("٣", "neither"),
        ("1;2", "neither"),
    ],
)
def test_a_wrong_list_of_clusters_says_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(LayoutError, match=wrong):
        parse_clusters(text, 8)


def test_a_list_of_clusters_can_be_read_before_their_number_is_known() -> None:
    assert parse_clusters("1-4,700") == {1, 2, 3, 4, 700}
    with pytest.raises(LayoutError, match="longer"):
        parse_clusters("1-999999999")


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        clusters = parse_clusters(text, 20)
    except LayoutError as error:
        said = str(error)
    else:
        said = "read"
        assert clusters <= frozenset(range(1, 21))
    assert said
