import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.backbones.rollout import roll_out

LEVELS = (0.25, 0.5, 0.75)


def toy_block(context: torch.Tensor) -> torch.Tensor:
    """Two steps of three quantiles that depend on every visible point and cross at times."""
    weights = torch.linspace(0.2, 1.0, context.shape[-1], dtype=context.dtype)
    level = (context * weights).sum(-1) / weights.sum()
    spread = torch.sin(context[:, -1])
    steps = torch.tensor([1.0, 2.0])
    return torch.stack([level[:, None] + sign * spread[:, None] * steps for sign in (-1.0, 0.3, 1.0)], dim=1)


def contexts(batch: int = 4, length: int = 6) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(3))


def rolled(context: torch.Tensor, horizon: int, kind: str, limit: int = 100) -> torch.Tensor:
    return roll_out(toy_block, context, horizon, kind=kind, levels=LEVELS, context_limit=limit)


@pytest.mark.parametrize("limit", [100, 7])
def test_median_equals_a_loop_that_appends_the_median_to_one_series(limit: int) -> None:
    for row in contexts():
        series, expected = row.tolist(), []
        for _ in range(4):
            block = toy_block(torch.tensor([series[-limit:]]))[0]
            expected.append(block)
            series += block[1].tolist()
        expected = torch.cat(expected, dim=-1)[:, :7].sort(dim=0).values
        torch.testing.assert_close(rolled(row[None], 7, "median", limit)[0], expected)


@pytest.mark.parametrize("limit", [100, 7])
def test_expand_equals_a_loop_over_the_paths_of_one_series(limit: int) -> None:
    for row in contexts():
        block = toy_block(row[None, -limit:])[0]
        expected, paths = [block], [row.tolist() for _ in LEVELS]
        for _ in range(3):
            paths = [path + block[level].tolist() for level, path in enumerate(paths)]
            branches = torch.cat([toy_block(torch.tensor([path[-limit:]]))[0] for path in paths])
            block = torch.stack([torch.quantile(branches, level, dim=0) for level in LEVELS])
            expected.append(block)
        expected = torch.cat(expected, dim=-1)[:, :7].sort(dim=0).values
        torch.testing.assert_close(rolled(row[None], 7, "expand", limit)[0], expected)


@pytest.mark.parametrize("kind", ["median", "expand"])
@settings(deadline=None, max_examples=25, derandomize=True)
@given(horizon=st.integers(1, 9), longer=st.integers(0, 5))
def test_a_shorter_horizon_is_the_prefix_of_a_longer_one(kind: str, horizon: int, longer: int) -> None:
    short, long = rolled(contexts(), horizon, kind), rolled(contexts(), horizon + longer, kind)
    assert torch.equal(short, long[..., :horizon])


@pytest.mark.parametrize("kind", ["median", "expand"])
def test_quantiles_never_cross_even_when_the_model_crosses(kind: str) -> None:
    raw = toy_block(contexts(64))
    assert (raw.diff(dim=1) < 0).any()
    assert (rolled(contexts(64), 9, kind).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("kind", ["median", "expand"])
def test_within_one_block_the_kind_does_not_matter(kind: str) -> None:
    expected = toy_block(contexts()).sort(dim=1).values
    assert torch.equal(rolled(contexts(), 2, kind), expected)


def test_on_a_random_walk_expand_widens_where_median_does_not() -> None:
    deciles = tuple(j / 10 for j in range(1, 10))
    step = torch.special.ndtri(torch.tensor(deciles))

    def walk_block(context: torch.Tensor) -> torch.Tensor:
        return context[:, -1:, None] + step[:, None]

    width = {}
    for kind in ("median", "expand"):
        forecast = roll_out(walk_block, contexts(), 6, kind=kind, levels=deciles, context_limit=100)
        width[kind] = forecast[:, -1] - forecast[:, 0]
    torch.testing.assert_close(width["median"], width["median"][:, :1].expand(-1, 6))
    # sqrt(6) would be right; the deciles carry no tails, so the scheme stops widening early.
    torch.testing.assert_close(
        width["expand"][:, -1] / width["expand"][:, 0], torch.full((4,), 1.2115), rtol=1e-3, atol=0
    )
