"""What RAFT and TS-RAG retrieve and forecast, against loops over train windows in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_cells import (
    CHANNELS,
    DECILES,
    FITS,
    HORIZON,
    LOOKBACK,
    ROWS,
    TEST,
    VAL,
    VALUES,
    Array,
    fitted_cell,
    parts,
    prepare,
    train_starts,
)

from tsbench.methods.fusion import predict_windows
from tsbench.methods.online_retrieval import granular_keys


def similarity(a: Array, b: Array) -> float:
    """RAFT's, as TS-Memory's Appendix C.4 defines it, block by block."""
    cosines = []
    for size in (4, 2, 1):
        views = []
        for context in (a, b):
            ends = range(len(context), size - 1, -size)
            means = np.array([context[end - size : end].mean() for end in ends]) - context[-1]
            views.append(means - means.mean())
        lengths = np.linalg.norm(views[0]) * np.linalg.norm(views[1])
        cosines.append(views[0] @ views[1] / lengths if lengths > 0 else 0.0)
    return float(np.mean(cosines))


def weighted_quantiles(futures: Array, weights: Array) -> Array:
    """Smallest future whose cumulative weight reaches the level, [Q, H]."""
    found = np.empty((len(DECILES), futures.shape[1]))
    for row, step in np.ndindex(found.shape):
        total = 0.0
        for place in np.argsort(futures[:, step]):
            total += weights[place]
            found[row, step] = futures[place, step]
            if total >= DECILES[row]:
                break
    return found


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), lookback=st.integers(8, 60), scale=st.floats(0.01, 100))
def test_inner_product_of_keys_is_the_mean_of_three_cosines(seed: int, lookback: int, scale: float) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, lookback)).cumsum(axis=1)
    keys = granular_keys(torch.from_numpy(np.stack([a, b, 5 - a, scale * b - 3])))
    assert keys.shape == (4, lookback // 4 + lookback // 2 + lookback)
    assert keys.dtype == torch.float32
    products = (keys @ keys.T).numpy()
    np.testing.assert_allclose(np.diag(products), 1, atol=1e-5)
    assert products[0, 1] == pytest.approx(similarity(a, b), abs=1e-5)
    assert products[0, 2] == pytest.approx(-1, abs=1e-5)
    assert products[0, 3] == pytest.approx(products[0, 1], abs=1e-5)  # neither scale nor offset counts


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_context_resembles_nothing(value: float) -> None:
    contexts = torch.stack([torch.full((20,), value), torch.arange(20.0)])
    keys = granular_keys(contexts)
    assert torch.equal(keys[0], torch.zeros_like(keys[0]))
    assert torch.isfinite(keys).all()


@pytest.mark.parametrize(("k", "temperature"), [(5, 0.05), (20, 0.2), (50, 0.5)])
def test_raft_equals_its_definition_taken_one_window_at_a_time(k: int, temperature: float) -> None:
    cell, result = fitted_cell("raft")
    companion = replace(parts(result)[1], k=k, temperature=temperature)
    queries = np.array([VAL, TEST, 651])
    context = cell.contexts(queries)
    retrieved = companion.retrieve(context)
    forecast = companion.predict(context, HORIZON).view(len(queries), CHANNELS, 9, HORIZON)
    for (row, start), channel in ((pair, c) for pair in enumerate(queries) for c in range(CHANNELS)):
        column = cell.task.scaled[:, channel].astype(np.float64)
        query = column[start - LOOKBACK : start]
        ranked = sorted(
            (-similarity(query, column[known - LOOKBACK : known]), int(known))
            for known in train_starts(companion)
        )[:k]
        neighbours = retrieved.neighbours[channel]
        assert neighbours.starts[row].tolist() == [known for _, known in ranked]
        weights = np.exp([-distance / temperature for distance, _ in ranked])
        weights /= weights.sum()
        np.testing.assert_allclose(retrieved.weights[channel][row], weights, rtol=1e-4)
        futures = np.stack([column[known : known + HORIZON] - column[known - 1] for _, known in ranked])
        expected = weighted_quantiles(futures + query[-1], weights)
        np.testing.assert_allclose(forecast[row, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("k", [5, 50])
def test_ts_rag_equals_its_definition_taken_one_window_at_a_time(k: int) -> None:
    cell, result = fitted_cell("ts-rag")
    companion = replace(parts(result)[1], k=k)
    assert companion.temperature == 0.1
    known = train_starts(companion)
    queries = np.array([VAL, TEST, 651])
    context = cell.contexts(queries)
    retrieved = companion.retrieve(context)
    forecast = companion.predict(context, HORIZON).view(len(queries), CHANNELS, 9, HORIZON)
    for channel in range(CHANNELS):
        column = cell.task.scaled[:, channel].astype(np.float64)
        embedded = {int(end): np.diff(column[end - LOOKBACK : end])[-12:] for end in [*known, *queries]}
        nearest = []
        for place in np.linspace(0, len(known) - 1, 256).astype(int):
            start = known[place]
            others = [other for other in known if abs(other - start) >= HORIZON]
            gaps = sorted(np.linalg.norm(embedded[int(other)] - embedded[int(start)]) for other in others)
            nearest += gaps[:50]
        unit = np.median(nearest)
        for row, start in enumerate(queries):
            ranked = sorted(
                (np.linalg.norm(embedded[int(start)] - embedded[int(other)]), int(other)) for other in known
            )[:k]
            assert retrieved.neighbours[channel].starts[row].tolist() == [other for _, other in ranked]
            weights = np.exp([-distance / (0.1 * unit) for distance, _ in ranked])
            weights /= weights.sum()
            np.testing.assert_allclose(retrieved.weights[channel][row], weights, rtol=1e-3, atol=1e-6)
            level = column[start - 16 : start].mean()
            futures = np.stack(
                [column[r : r + HORIZON] + level - column[r - 16 : r].mean() for _, r in ranked]
            )
            expected = weighted_quantiles(futures, weights)
            np.testing.assert_allclose(forecast[row, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("method", list(FITS))
def test_forecasts_do_not_depend_on_the_other_windows_and_shorter_ones_are_prefixes(method: str) -> None:
    cell, result = fitted_cell(method)
    _, companion = parts(result)
    starts = np.tile(cell.task.test_windows().starts, 4)  # more than one chunk
    together = predict_windows(companion, cell.frozen, starts, HORIZON)
    assert (together.diff(dim=2) >= 0).all()
    for place in (0, 130, len(starts) - 1):
        alone = predict_windows(companion, cell.frozen, starts[[place]], HORIZON)
        torch.testing.assert_close(alone[0], together[place])
        shorter = predict_windows(companion, cell.frozen, starts[[place]], 2)
        assert torch.equal(shorter, alone[..., :2])


@pytest.mark.parametrize("method", list(FITS))
def test_contexts_of_half_a_window_and_horizons_beyond_the_stored_futures_are_refused(method: str) -> None:
    _, companion = parts(fitted_cell(method)[1])
    with pytest.raises(ValueError, match="3 contexts are no whole windows of 2 channels"):
        companion.predict(torch.zeros(3, LOOKBACK), HORIZON)
    with pytest.raises(ValueError, match="futures of 6 steps, not 7"):
        companion.predict(torch.zeros(2, LOOKBACK), HORIZON + 1)


def test_equally_similar_windows_are_taken_in_order_of_time() -> None:
    values = np.tile(np.random.default_rng(0).permutation(24).astype(float), 30)[:ROWS]
    cell = prepare("raft", np.stack([values, -values], axis=1))
    _, companion = parts(cell.fit())
    query = LOOKBACK + 20 * 24
    [found, _] = replace(companion, k=5).retrieve(cell.contexts(np.array([query]))).neighbours
    same = [start for start in train_starts(companion) if (query - start) % 24 == 0]
    assert len(same) > 10
    assert found.starts[0].tolist() == same[:5]


def test_neighbours_are_at_most_the_windows_there_are() -> None:
    cell = prepare("raft", max_knowledge_rows=14)
    result = cell.fit()
    assert result.diagnostics["known_windows"] == 7
    assert result.diagnostics["k"] in (5, 7)


def test_a_constant_channel_is_forecast_as_the_constant() -> None:
    values = VALUES.copy()
    values[:, 1] = 3.0
    cell = prepare("raft", values)
    forecast = predict_windows(parts(cell.fit())[1], cell.frozen, cell.task.test_windows().starts, HORIZON)
    np.testing.assert_array_equal(forecast[:, 1], 0)  # the standardised constant
    assert torch.isfinite(forecast).all()
