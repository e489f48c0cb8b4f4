import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tsbench.models.flame.layers import (
    Attention,
    EncoderLayer,
    GatedFeedForward,
    PatchEmbedding,
    rotary_angles,
    rotate,
)

WIDTH, HEADS, BATCH, QUERIES, MEMORY = 16, 2, 3, 5, 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(WIDTH, HEADS)


def sequences() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    positions = (torch.arange(MEMORY, MEMORY + QUERIES), torch.arange(MEMORY))
    return normal(BATCH, QUERIES, WIDTH), normal(BATCH, MEMORY, WIDTH, seed=1), positions


def some_observed() -> Tensor:
    observed = normal(BATCH, MEMORY, seed=2) > 0
    observed[:, 0] = True
    assert not observed.all()
    return observed


def test_rotation_keeps_the_norm_of_every_token() -> None:
    x = normal(BATCH, QUERIES, WIDTH)
    turned = rotate(x, rotary_angles(torch.arange(QUERIES) * 17, WIDTH))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x)


def test_rotation_is_multiplication_of_complex_pairs() -> None:
    x, angles = normal(QUERIES, WIDTH), rotary_angles(torch.arange(QUERIES), WIDTH)
    pairs = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * angles)
    torch.testing.assert_close(rotate(x, angles), torch.cat([pairs.real, pairs.imag], dim=-1))


def test_rotary_wavelengths_rise_from_one_token_per_radian_to_nearly_the_base() -> None:
    angles = rotary_angles(torch.tensor([1]), WIDTH)[0]
    assert angles[0] == 1
    torch.testing.assert_close(angles[-1], torch.tensor(100.0 ** -(1 - 2 / WIDTH)))
    assert (angles.diff() < 0).all()


def test_attention_depends_on_relative_positions_only(attention: Attention) -> None:
    x, memory, (queries, keys) = sequences()
    base = attention(x, memory, (queries, keys))
    moved = attention(x, memory, (queries + 40, keys + 40))
    stretched = attention(x, memory, (queries + 40, keys))
    torch.testing.assert_close(moved, base, atol=1e-5, rtol=1e-5)
    assert (stretched - base).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_scaled_dot_product_attention(attention: Attention, masked: bool) -> None:
    x, memory, positions = sequences()
    observed = some_observed() if masked else None

    def head(features: Tensor, index: int, at: Tensor | None = None) -> Tensor:
        """One head's features [B, T, d / heads]; heads are interleaved. Positions turn complex pairs."""
        own = features[..., index::HEADS]
        if at is None:
            return own
        frequencies = 100.0 ** (-torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
        turned = torch.complex(*own.chunk(2, dim=-1)) * torch.exp(1j * at[:, None] * frequencies)
        return torch.cat([turned.real, turned.imag], dim=-1)

    query = attention.query(x)
    key, value = attention.key_value(memory).chunk(2, dim=-1)
    expected = torch.empty(BATCH, QUERIES, WIDTH)
    for index in range(HEADS):
        expected[..., index::HEADS] = functional.scaled_dot_product_attention(
            head(query, index, positions[0]),
            head(key, index, positions[1]),
            head(value, index),
            attn_mask=None if observed is None else observed[:, None, :].expand(-1, QUERIES, -1),
        )
    torch.testing.assert_close(
        attention(x, memory, positions, observed), attention.out(expected), atol=1e-5, rtol=1e-5
    )


def test_masked_tokens_have_no_influence(attention: Attention) -> None:
    x, memory, positions = sequences()
    observed = some_observed()
    other = torch.where(observed[..., None], memory, 1e3 * normal(*memory.shape, seed=3))
    torch.testing.assert_close(
        attention(x, other, positions, observed), attention(x, memory, positions, observed), atol=0, rtol=0
    )


def test_encoder_layer_moves_with_its_tokens_when_positions_move_too() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(WIDTH, HEADS)
    x, positions, observed = normal(BATCH, MEMORY, WIDTH), torch.arange(MEMORY), some_observed()
    order = torch.randperm(MEMORY, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        layer(x[:, order], positions[order], observed[:, order]),
        layer(x, positions, observed)[:, order],
        atol=1e-5,
        rtol=1e-5,
    )


def test_feed_forward_is_gated_by_silu() -> None:
    torch.manual_seed(0)
    layer, x = GatedFeedForward(WIDTH), normal(BATCH, WIDTH)
    gate, up = layer.gate_up.weight[: 2 * WIDTH] @ x.T, layer.gate_up.weight[2 * WIDTH :] @ x.T
    expected = layer.down.weight @ (gate / (1 + torch.exp(-gate)) * up)
    torch.testing.assert_close(layer(x), expected.T)


def test_patch_embedding_tells_missing_from_zero() -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding(patch=4, width=WIDTH)
    values = torch.zeros(1, 1, 4)
    present = embedding(values, torch.ones(1, 1, 4, dtype=torch.bool))
    missing = embedding(values, torch.zeros(1, 1, 4, dtype=torch.bool))
    assert present.shape == (1, 1, WIDTH)
    assert (present - missing).abs().max() > 1e-2
