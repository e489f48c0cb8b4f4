import pytest
import torch
from torch import nn

pytest.importorskip("peft")
from tsbench.models.lora import adapted_copy, adapters, nearest_rank

RANK, ALPHA = 2, 6


class Block(nn.Module):
    """Two projections that are adapted and a third layer whose name merely ends like theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 6, bias=False)
        self.o = nn.Linear(6, 8)
        self.top = nn.ModuleDict({"seq": nn.Linear(8, 8)})
        self.register_buffer("offset", torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top["seq"](self.o(self.q(x).tanh()) + self.offset)  # type: ignore[no-any-return]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).requires_grad_(False)


def values() -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def randomise(adapted: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    for weight in adapters(adapted).parameters():
        weight.data = torch.randn(weight.shape, generator=generator)


def test_untrained_adapters_change_nothing(network: nn.Module) -> None:
    adapted = adapted_copy(network, ("q", "o"), RANK, ALPHA)
    assert torch.equal(adapted(values()), network(values()))


def test_adapters_are_a_low_rank_update_of_the_named_layers(network: nn.Module) -> None:
    adapted = adapted_copy(network, ("q", "o"), RANK, ALPHA)
    randomise(adapted)
    adapted_output = adapted(values())
    pairs = iter(adapters(adapted))
    for block in network:  # type: ignore[attr-defined]
        for layer in (block.q, block.o):
            down, up = (part.weight for part in next(pairs))  # type: ignore[attr-defined]
            layer.weight.copy_(layer.weight + ALPHA / RANK * up @ down)
    assert next(pairs, None) is None
    torch.testing.assert_close(adapted_output, network(values()))


def test_the_copy_shares_the_weights_and_leaves_the_network_as_it_is(network: nn.Module) -> None:
    before, state = network(values()), {name: t.clone() for name, t in network.state_dict().items()}
    adapted = adapted_copy(network, ("q",), RANK, ALPHA).train()
    randomise(adapted)
    network.eval()
    assert adapted.training
    assert not torch.equal(adapted(values()), before)
    assert torch.equal(network(values()), before)
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    inside = {tensor.data_ptr() for tensor in (*adapted.parameters(), *adapted.buffers())}
    assert {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())} <= inside
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {f"{block}.q.lora_{part}.default.weight" for block in (0, 1) for part in "AB"}


@pytest.mark.parametrize(
    ("budget", "rank"),
    [(0, 1), (56, 1), (83, 1), (85, 2), (168, 3), (10**6, 6)],  # two blocks of (8 + 6) + (6 + 8) a rank
)
def test_the_rank_is_the_nearest_to_a_budget_within_1_and_full(
    network: nn.Module, budget: int, rank: int
) -> None:
    assert nearest_rank(network, ("q", "o"), budget) == rank
    trained = adapters(adapted_copy(network, ("q", "o"), rank, ALPHA)).parameters()
    assert sum(parameter.numel() for parameter in trained) == 56 * rank
