import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsbench.choices import Exclusion
from tsbench.config import TeacherOptions
from tsbench.errors import TsbenchError
from tsbench.methods.ts_memory.retrieval import (
    ChannelIndex,
    KnowledgeBase,
    Neighbours,
    _smallest,
    blocks,
    exclusion_zone,
    in_threads,
)

LOOKBACK, HORIZON = 24, 8
RULES: tuple[Exclusion, ...] = ("self", "target", "window")
OPTIONS = TeacherOptions(pool=10, neighbours=4, alignment_tail=6)


def knowledge_base(rows: int = 300, stride: int = 1, channels: int = 2) -> KnowledgeBase:
    """Random walks whose embeddings are five random projections of the centred context."""
    rng = np.random.default_rng(3)
    scaled = rng.standard_normal((rows, channels)).cumsum(axis=0).astype(np.float32)
    projection = rng.standard_normal((LOOKBACK, 5))
    starts = np.arange(LOOKBACK, rows - HORIZON + 1, stride)
    contexts = np.stack([scaled[start - LOOKBACK : start].T for start in starts]).astype(np.float64)
    embeddings = (contexts - contexts.mean(axis=-1, keepdims=True)) @ projection
    return KnowledgeBase(scaled, starts, embeddings.astype(np.float32), LOOKBACK, HORIZON)


def retrieve(
    base: KnowledgeBase,
    members: NDArray[np.int64],
    zone: int,
    options: TeacherOptions = OPTIONS,
    channel: int = 1,
) -> Neighbours:
    """Neighbours of some of the knowledge base's own windows."""
    queries = np.ascontiguousarray(base.embeddings[members, channel])
    return ChannelIndex(base, channel).neighbours(base.starts[members], queries, options, zone)


def test_exclusion_rules_are_the_documented_zones() -> None:
    zones = [exclusion_zone(TeacherOptions(exclusion=rule), LOOKBACK, HORIZON) for rule in RULES]
    assert zones == [1, HORIZON, LOOKBACK + HORIZON]


def test_contexts_and_futures_are_the_rows_before_and_from_the_start() -> None:
    base = knowledge_base()
    starts = np.array([[LOOKBACK, 100], [292, 51]])
    for (i, j), start in np.ndenumerate(starts):
        context, future = base.contexts(starts, 1)[i, j], base.futures(starts, 0)[i, j]
        np.testing.assert_array_equal(context, base.scaled[start - LOOKBACK : start, 1])
        np.testing.assert_array_equal(future, base.scaled[start : start + HORIZON, 0])


@pytest.mark.parametrize("stride", [1, 3, 11])
@pytest.mark.parametrize("rule", RULES)
def test_no_neighbour_is_nearer_in_time_than_the_exclusion_zone(rule: Exclusion, stride: int) -> None:
    base = knowledge_base(stride=stride)
    zone = exclusion_zone(TeacherOptions(exclusion=rule), LOOKBACK, HORIZON)
    found = retrieve(base, np.arange(len(base.starts)), zone)
    for start, neighbours in zip(base.starts, found.starts, strict=True):
        assert all(abs(int(neighbour) - int(start)) >= zone for neighbour in neighbours)
        assert set(neighbours) <= set(base.starts)
        assert len(set(neighbours)) == 4


@pytest.mark.parametrize("zone", [0, 1, 8, 32])
def test_pool_is_the_nearest_admissible_embeddings_and_the_kept_ones_have_the_nearest_aligned_contexts(
    zone: int,
) -> None:
    base = knowledge_base()
    members = np.arange(0, len(base.starts), 2)  # more than one block of queries
    found = retrieve(base, members, zone)
    embeddings = base.embeddings[:, 1].astype(np.float64)
    for row, member in enumerate(members):
        distance = np.sqrt(((embeddings - embeddings[member]) ** 2).sum(axis=1))
        distance[np.abs(base.starts - base.starts[member]) < zone] = np.inf
        pool = np.argsort(distance)[:10]
        query = base.contexts(base.starts[member], 1)
        shifts, gaps = {}, {}
        for i in pool:
            context = base.contexts(base.starts[i], 1)
            shifts[i] = query[-6:].mean() - context[-6:].mean()
            gaps[i] = np.abs(query - (context + shifts[i])).sum()
        kept = sorted(pool, key=gaps.__getitem__)[:4]
        assert found.starts[row].tolist() == base.starts[kept].tolist()
        np.testing.assert_allclose(found.distances[row], distance[kept], rtol=1e-4, atol=2e-3)
        np.testing.assert_allclose(found.shifts[row], [shifts[i] for i in kept], atol=1e-5)


def test_neighbours_do_not_depend_on_the_other_queries_or_on_the_other_channel() -> None:
    base = knowledge_base()
    everything = retrieve(base, np.arange(200), HORIZON)
    some = retrieve(base, np.array([150, 7]), HORIZON)
    np.testing.assert_array_equal(some.starts, everything.starts[[150, 7]])
    scaled, embeddings = base.scaled.copy(), base.embeddings.copy()
    scaled[:, 0], embeddings[:, 0] = 0, 0
    alone = KnowledgeBase(scaled, base.starts, embeddings, LOOKBACK, HORIZON)
    np.testing.assert_array_equal(retrieve(alone, np.arange(200), HORIZON).starts, everything.starts)


def periodic(rows: int, period: int) -> KnowledgeBase:
    """Whole numbers that repeat exactly: windows a period apart are equal in every respect."""
    values = np.random.default_rng(0).permutation(period).astype(np.float32)
    scaled = np.tile(values, -(-rows // period))[:rows, None]
    starts = np.arange(LOOKBACK, rows - HORIZON + 1)
    embeddings = np.stack([scaled[start - 5 : start].T for start in starts])
    return KnowledgeBase(scaled, starts, embeddings, LOOKBACK, HORIZON)


@pytest.mark.parametrize("pool", [3, 5, 8])
def test_equal_windows_are_taken_in_order_of_time(pool: int) -> None:
    period = 20
    base = periodic(400, period)
    members = np.array([0, 83, 200, 200 + period, len(base.starts) - 1])
    options = TeacherOptions(pool=pool, neighbours=3, alignment_tail=6)
    found = retrieve(base, members, HORIZON, options, channel=0)
    for member, neighbours in zip(members, found.starts, strict=True):
        same = [i for i in range(member % period, len(base.starts), period) if i != member]
        assert neighbours.tolist() == base.starts[same[:3]].tolist()
    np.testing.assert_array_equal(found.distances, 0)
    np.testing.assert_array_equal(found.shifts, 0)


def test_when_fewer_windows_are_admissible_than_wanted_then_all_of_them_are_used() -> None:
    base = knowledge_base(rows=LOOKBACK + HORIZON + 14)
    assert len(base.starts) == 15
    options = TeacherOptions(pool=50, neighbours=20, alignment_tail=6)
    assert retrieve(base, np.array([0, 7, 14]), 0, options).starts.shape == (3, 15)
    assert retrieve(base, np.array([0, 7, 14]), 1, options).starts.shape == (3, 14)
    found = retrieve(base, np.array([0, 7, 14]), 5, options)  # 9 are within 4 steps of the middle one
    assert found.starts.shape == (3, 6)
    middle = sorted(found.starts[1] - LOOKBACK)
    assert middle == [0, 1, 2, 12, 13, 14]


def test_when_nothing_is_admissible_then_the_remedy_is_named() -> None:
    base = knowledge_base(rows=LOOKBACK + HORIZON + 14)
    message = r"some of the 15 train windows have no other one 8 steps or more away; use a shorter lookback"
    with pytest.raises(TsbenchError, match=message):
        retrieve(base, np.array([0, 7]), HORIZON)
    with pytest.raises(TsbenchError, match=message):
        ChannelIndex(base, 0).distance_scale(OPTIONS, HORIZON)


@pytest.mark.parametrize("zone", [1, 32])
def test_distance_scale_is_the_median_distance_to_a_pool_of_a_sample(zone: int) -> None:
    base = knowledge_base(rows=600)
    embeddings = base.embeddings[:, 0].astype(np.float64)
    sample = np.linspace(0, len(base.starts) - 1, 256).astype(int)
    distances = []
    for i in sample:
        distance = np.sqrt(((embeddings - embeddings[i]) ** 2).sum(axis=1))
        distances += np.sort(distance[np.abs(base.starts - base.starts[i]) >= zone])[:10].tolist()
    scale = ChannelIndex(base, 0).distance_scale(OPTIONS, zone)
    assert scale == pytest.approx(np.median(distances), rel=1e-4)


def test_distance_scale_of_identical_embeddings_is_positive() -> None:
    base = knowledge_base()
    flat = KnowledgeBase(base.scaled, base.starts, np.zeros_like(base.embeddings), LOOKBACK, HORIZON)
    assert ChannelIndex(flat, 0).distance_scale(OPTIONS, 1) > 0


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 99), rows=st.integers(1, 4), columns=st.integers(1, 40), data=st.data())
def test_of_equal_values_the_first_are_the_smallest(
    seed: int, rows: int, columns: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, columns))
    values = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.float32)
    found = _smallest(torch.from_numpy(values), count).numpy()
    np.testing.assert_array_equal(found, np.argsort(values, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize("distinct", [5, 60, 10**6])
@pytest.mark.parametrize("columns", [299, 304])
def test_the_smallest_of_many_values_are_found_among_groups(columns: int, distinct: int) -> None:
    values = np.random.default_rng(columns).integers(0, distinct, (50, columns)).astype(np.float32)
    values[:, 100:120] = np.inf
    found = _smallest(torch.from_numpy(values), 20).numpy()
    np.testing.assert_array_equal(found, np.argsort(values, axis=1, kind="stable")[:, :20])


def test_neighbours_do_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    base, threads = knowledge_base(), torch.get_num_threads()
    one = retrieve(base, np.arange(200), HORIZON)
    monkeypatch.setattr("tsbench.methods.ts_memory.retrieval._DISTANCES_AT_ONCE", 37 * len(base.starts))
    try:
        torch.set_num_threads(3)
        several = retrieve(base, np.arange(200), HORIZON)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(several.starts, one.starts)
    np.testing.assert_allclose(several.distances, one.distances, rtol=1e-6)


def test_threads_answer_in_order_and_use_one_thread_each() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        parts = blocks(10, 3)
        answers = in_threads(lambda part: (part.start, part.stop, torch.get_num_threads()), parts)
        assert answers == [(0, 3, 1), (3, 6, 1), (6, 9, 1), (9, 10, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
