import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tsbench.choices import Exclusion
from tsbench.config import TeacherOptions
from tsbench.errors import TsbenchError
from tsbench.methods.ts_memory.retrieval import KnowledgeBase, exclusion_zone
from tsbench.methods.ts_memory.teacher import (
    Teacher,
    build_teacher,
    softmax_weights,
    teacher_quality,
    weighted_quantiles,
)

LOOKBACK = 24
LEVELS = (0.1, 0.25, 0.5, 0.9)
DECILES = tuple(round(0.1 * j, 1) for j in range(1, 10))


def embed(scaled: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Five random projections of the centred contexts, [W, C, 5]."""
    projection = np.random.default_rng(8).standard_normal((LOOKBACK, 5))
    contexts = np.stack([scaled[start - LOOKBACK : start].T for start in starts]).astype(np.float64)
    return ((contexts - contexts.mean(axis=-1, keepdims=True)) @ projection).astype(np.float32)


def walks(rows: int = 330, channels: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((rows, channels)).cumsum(axis=0).astype(np.float32)


def knowledge_base(
    scaled: NDArray[np.float32], train_end: int, horizon: int, stride: int = 1
) -> KnowledgeBase:
    starts = np.arange(LOOKBACK, train_end - horizon + 1, stride)
    return KnowledgeBase(scaled, starts, embed(scaled, starts), LOOKBACK, horizon)


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def distance_scale(base: KnowledgeBase, channel: int, options: TeacherOptions, zone: int) -> float:
    """Median over 256 evenly spaced windows of the distances to their pools: the unit of τ."""
    embeddings, nearest = base.embeddings[:, channel], []
    for i in np.linspace(0, len(base.starts) - 1, 256).astype(int):
        others = np.flatnonzero(np.abs(base.starts - base.starts[i]) >= zone)
        distances = np.linalg.norm(embeddings[others].astype(np.float64) - embeddings[i], axis=1)
        nearest += sorted(distances)[: options.pool]
    return float(np.median(nearest))


def one_query(
    base: KnowledgeBase,
    channel: int,
    start: int,
    embedding: NDArray[np.float32],
    options: TeacherOptions,
    zone: int,
    temperature: float,
) -> tuple[list[int], list[float], float, NDArray[np.float64]]:
    """Algorithm 1 and Eqs. 4 to 9 for one window of one channel, one candidate at a time."""
    series = base.scaled[:, channel].astype(np.float64)
    context = series[start - LOOKBACK : start]
    tail = options.alignment_tail
    pool = []
    for i, known in enumerate(base.starts):
        if abs(int(known) - start) >= zone:
            pool.append((distance(embedding, base.embeddings[i, channel]), int(known)))
    ranked = []
    for d, known in sorted(pool)[: options.pool]:
        candidate = series[known - LOOKBACK : known]
        shift = context[-tail:].mean() - candidate[-tail:].mean()  # Eq. 5
        gap = np.abs(context - (candidate + shift)).sum()  # Eq. 6
        ranked.append((gap, d, known, series[known : known + base.horizon] + shift))
    kept = sorted(ranked, key=lambda entry: entry[0])[: options.neighbours]
    scores = [math.exp(-d / temperature) for _, d, _, _ in kept]
    weights = [score / sum(scores) for score in scores]  # Eq. 7
    quantiles = np.empty((len(LEVELS), base.horizon))
    for step in range(base.horizon):
        ordered = sorted((future[step], w) for (_, _, _, future), w in zip(kept, weights, strict=True))
        for row, level in enumerate(LEVELS):  # Eq. 8
            total, place = 0.0, -1
            while total < level:
                place += 1
                total += ordered[place][1]
            quantiles[row, step] = ordered[place][0]
    return [known for _, _, known, _ in kept], weights, max(weights), quantiles


@pytest.mark.parametrize(
    ("rule", "horizon", "stride", "pool", "neighbours", "tail"),
    [
        ("self", 8, 1, 12, 5, 6),
        ("target", 8, 1, 12, 5, 6),
        ("window", 8, 1, 12, 5, 6),
        ("target", 1, 2, 7, 7, 1),
        ("target", 20, 3, 20, 1, 24),
    ],
)
def test_teacher_equals_the_papers_equations_taken_one_window_at_a_time(
    rule: Exclusion, horizon: int, stride: int, pool: int, neighbours: int, tail: int
) -> None:
    base = knowledge_base(walks(), 300, horizon, stride)
    options = TeacherOptions(
        exclusion=rule, pool=pool, neighbours=neighbours, alignment_tail=tail, temperature=0.3
    )
    zone = exclusion_zone(options, LOOKBACK, horizon)
    members = np.arange(0, len(base.starts), 3)  # more than one block of queries at stride 1
    queries = base.starts[members]
    teacher = build_teacher(base, queries, base.embeddings[members], LEVELS, options, queries_are_train=True)
    assert teacher.quantiles.shape == (len(queries), 2, len(LEVELS), horizon)
    assert teacher.quantiles.dtype == teacher.weights.dtype == teacher.confidence.dtype == np.float32
    np.testing.assert_array_equal(teacher.query_starts, queries)
    for channel in range(2):
        temperature = 0.3 * distance_scale(base, channel, options, zone)
        for row, member in enumerate(members):
            known, weights, confidence, quantiles = one_query(
                base,
                channel,
                int(queries[row]),
                base.embeddings[member, channel],
                options,
                zone,
                temperature,
            )
            assert teacher.neighbours[row, channel].tolist() == known
            np.testing.assert_allclose(teacher.weights[row, channel], weights, atol=1e-4)
            np.testing.assert_allclose(teacher.confidence[row, channel], confidence, atol=1e-4)
            np.testing.assert_allclose(teacher.quantiles[row, channel], quantiles, atol=1e-4)


def test_queries_after_the_train_rows_are_answered_without_an_exclusion_zone() -> None:
    scaled = walks()
    base = knowledge_base(scaled, 300, 8)
    queries = np.array([300, 307, 320])
    options = TeacherOptions(exclusion="window", pool=12, neighbours=5, alignment_tail=6, temperature=0.3)
    embeddings = embed(scaled, queries)
    teacher = build_teacher(base, queries, embeddings, LEVELS, options, queries_are_train=False)
    for channel in range(2):
        temperature = 0.3 * distance_scale(base, channel, options, LOOKBACK + 8)
        for row, start in enumerate(queries):
            known, weights, _, quantiles = one_query(
                base, channel, int(start), embeddings[row, channel], options, 0, temperature
            )
            assert teacher.neighbours[row, channel].tolist() == known
            np.testing.assert_allclose(teacher.weights[row, channel], weights, atol=1e-4)
            np.testing.assert_allclose(teacher.quantiles[row, channel], quantiles, atol=1e-4)
    assert teacher.neighbours.max() + 8 <= 300


def test_when_the_knowledge_base_reaches_the_target_of_a_validation_query_then_it_is_refused() -> None:
    scaled = walks()
    base = knowledge_base(scaled, 300, 8)
    queries = np.array([310, 299])
    with pytest.raises(ValueError, match="the knowledge base reaches into the queries' targets"):
        build_teacher(
            base, queries, embed(scaled, queries), LEVELS, TeacherOptions(), queries_are_train=False
        )


@pytest.mark.parametrize("rule", ["self", "target", "window"])
def test_no_stored_neighbour_is_nearer_in_time_than_the_rule_allows(rule: Exclusion) -> None:
    horizon = 8
    base = knowledge_base(walks(), 300, horizon)
    options = TeacherOptions(exclusion=rule, pool=12, neighbours=5)
    teacher = build_teacher(base, base.starts, base.embeddings, LEVELS, options, queries_are_train=True)
    gaps = np.abs(teacher.neighbours - teacher.query_starts[:, None, None])
    zone = {"self": 1, "target": horizon, "window": LOOKBACK + horizon}[rule]
    assert gaps.min() >= zone
    assert teacher.neighbours.min() >= LOOKBACK
    assert teacher.neighbours.max() + horizon <= 300


def test_a_spike_only_in_a_querys_target_is_seen_by_its_teacher_under_the_rule_self_alone() -> None:
    horizon, spike = 12, 50.0
    walk = walks(430, channels=1)[:, 0]
    scaled = np.convolve(walk, np.ones(31, np.float32) / 31, "valid")[:, None]  # near in time, near in shape
    row = 217
    scaled[row] = spike
    base = knowledge_base(scaled, 400, horizon)
    queries = np.arange(row - horizon + 1, row + 1)  # the windows with the spike in their targets
    members = queries - LOOKBACK
    seen = {}
    for rule in ("self", "target", "window"):
        options = TeacherOptions(exclusion=rule, pool=10, neighbours=4, temperature=1)
        teacher = build_teacher(
            base, queries, base.embeddings[members], DECILES, options, queries_are_train=True
        )
        seen[rule] = (teacher.quantiles > spike / 2).any(axis=(1, 2, 3))
    assert not seen["target"].any()
    assert not seen["window"].any()
    assert seen["self"].all()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), neighbours=st.integers(1, 30), steps=st.integers(1, 4))
def test_weighted_quantiles_are_values_that_ascend_and_equal_a_loop(
    seed: int, neighbours: int, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((3, neighbours, steps)).astype(np.float32)
    weights = rng.dirichlet(np.full(neighbours, 0.5), size=3).astype(np.float32)
    levels = tuple(np.sort(rng.uniform(0.01, 0.99, 5)))
    quantiles = weighted_quantiles(values, weights, levels)
    assert quantiles.shape == (3, 5, steps)
    assert quantiles.dtype == np.float32
    assert (np.diff(quantiles, axis=1) >= 0).all()
    for window, row, step in np.ndindex(quantiles.shape):
        order = np.argsort(values[window, :, step])
        cumulative = np.cumsum(weights[window, order].astype(np.float64))
        place = np.flatnonzero(cumulative >= levels[row])
        expected = values[window, order[place[0] if len(place) else -1], step]
        assert quantiles[window, row, step] == expected


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), neighbours=st.integers(1, 40))
def test_with_equal_weights_weighted_quantiles_are_order_statistics(seed: int, neighbours: int) -> None:
    levels = (0.13, 0.31, 0.57, 0.83)  # met exactly by no number of equal weights up to 99
    values = np.random.default_rng(seed).standard_normal((2, neighbours, 3)).astype(np.float32)
    weights = np.full((2, neighbours), 1 / neighbours, dtype=np.float32)
    expected = np.quantile(values, levels, axis=1, method="inverted_cdf").swapaxes(0, 1)
    np.testing.assert_array_equal(weighted_quantiles(values, weights, levels), expected)


@pytest.mark.parametrize("neighbours", [10, 20])
def test_a_cumulative_weight_that_meets_a_level_exactly_is_enough(neighbours: int) -> None:
    values = np.arange(neighbours, 0, -1, dtype=np.float32)[None, :, None]
    weights = np.full((1, neighbours), 1 / neighbours, dtype=np.float32)
    expected = np.arange(1, 10) * (neighbours // 10)
    np.testing.assert_array_equal(weighted_quantiles(values, weights, DECILES)[0, :, 0], expected)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    distances=st.lists(st.floats(0, 1e4, width=32), min_size=2, max_size=30),
    temperature=st.floats(1e-3, 1e3),
)
def test_weights_sum_to_one_and_confidence_meets_its_lower_bound(
    distances: list[float], temperature: float
) -> None:
    """The bound of Eq. 27: Conf >= 1 / (1 + (K - 1) exp(-gap / τ)), gap between the two smallest."""
    weights = softmax_weights(np.array([distances], dtype=np.float32), temperature)[0]
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert (weights >= 0).all()
    first, second, *_ = sorted(distances)
    bound = 1 / (1 + (len(distances) - 1) * math.exp(-(second - first) / temperature))
    assert weights.max() >= bound - 1e-6
    assert weights.argmax() == distances.index(first) or weights.max() == weights[distances.index(first)]


def small_teacher() -> Teacher:
    base = knowledge_base(walks(), 120, 4)
    return build_teacher(
        base,
        base.starts[::9],
        base.embeddings[::9],
        LEVELS,
        TeacherOptions(pool=6, neighbours=3),
        queries_are_train=True,
    )


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    teacher = small_teacher()
    path = tmp_path / "new" / "teacher.safetensors"
    teacher.save(path)
    loaded = Teacher.load(path)
    for name, array in vars(teacher).items():
        stored = getattr(loaded, name)
        assert stored.dtype == array.dtype
        np.testing.assert_array_equal(stored, array)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kept_bytes", [0, 20, 400])
def test_damaged_file_is_named_with_the_remedy(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "teacher.safetensors"
    small_teacher().save(path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(TsbenchError, match=r"is not a readable teacher; delete it and run again"):
        Teacher.load(path)


def test_quality_compares_medians_and_counts_the_pairs_on_which_the_teacher_wins() -> None:
    teacher = small_teacher()
    windows, channels = teacher.confidence.shape
    targets = np.zeros((windows, channels, 4), dtype=np.float32)
    base = np.full_like(targets, 2.5)
    quality = teacher_quality(teacher, base, targets, LEVELS.index(0.5))
    errors = [
        float(np.abs(teacher.quantiles[w, c, 2].astype(np.float64)).mean())
        for w, c in np.ndindex(windows, channels)
    ]
    assert quality.teacher_mae == pytest.approx(np.mean(errors))
    assert quality.base_mae == pytest.approx(2.5)
    assert quality.gate_open == pytest.approx(np.mean([error < 2.5 for error in errors]))
    assert 0 < quality.gate_open < 1
    assert quality.confidence_mean == pytest.approx(teacher.confidence.mean(), rel=1e-5)
