import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.metrics.ranks import compare_ranks, nemenyi_difference

SEEDED = settings(deadline=None, max_examples=25, derandomize=True)

# Demšar (2006), Table 5a: q at 0.05 for 2 to 10 classifiers.
DEMSAR = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)


@pytest.mark.parametrize(("methods", "q"), list(enumerate(DEMSAR, start=2)))
def test_the_critical_difference_agrees_with_the_printed_quantiles(methods: int, q: float) -> None:
    found = nemenyi_difference(methods, 14)
    assert found == pytest.approx(q * math.sqrt(methods * (methods + 1) / (6 * 14)), rel=4e-4)


def test_the_critical_difference_agrees_with_demsars_example() -> None:
    """Four classifiers on 14 data sets: 2.569 sqrt(4 x 5 / (6 x 14)) = 1.25."""
    assert nemenyi_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@SEEDED
@given(st.integers(0, 99), st.integers(3, 6), st.integers(2, 12))
def test_friedmans_statistic_agrees_with_its_formula(seed: int, methods: int, data_sets: int) -> None:
    errors = np.random.default_rng(seed).gamma(2, size=(data_sets, methods))
    found = compare_ranks([str(place) for place in range(methods)], errors)
    ranks = np.array([[1 + sum(other < one for other in row) for one in row] for row in errors])
    squares = sum(rank**2 for rank in ranks.mean(axis=0))
    expected = 12 * data_sets / (methods * (methods + 1)) * (squares - methods * (methods + 1) ** 2 / 4)
    assert found.statistic == pytest.approx(expected)
    assert sum(found.ranks) == pytest.approx(methods * (methods + 1) / 2)
    assert list(found.ranks) == sorted(found.ranks)
    assert dict(zip(found.names, found.ranks, strict=True)) == pytest.approx(
        {str(place): rank for place, rank in enumerate(ranks.mean(axis=0))}
    )


def test_groups_hold_what_is_not_told_apart_and_none_lies_within_another() -> None:
    errors = np.tile(np.arange(5.0), (12, 1))  # ranks 1 to 5 everywhere; critical difference 1.76
    found = compare_ranks("abcde", errors)
    assert found.ranks == (1, 2, 3, 4, 5)
    assert 1 < found.difference < 2
    assert found.groups == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    wider = compare_ranks("abcde", errors[:6])  # 2.49
    assert wider.groups == (("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e"))
    assert compare_ranks("abcde", np.repeat(errors, 10, axis=0)).groups == ()


def test_where_all_tie_or_only_two_compete_there_is_no_friedman_test() -> None:
    tied = compare_ranks("abc", np.ones((4, 3)))
    assert tied.ranks == (2, 2, 2)
    assert math.isnan(tied.p)
    assert tied.groups == (("a", "b", "c"),)
    assert math.isnan(compare_ranks("ab", np.arange(8.0).reshape(4, 2)).p)
