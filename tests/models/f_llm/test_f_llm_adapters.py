from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("peft")
from test_f_llm_plant import CONFIG, contexts, language_model

from tsbench.models.f_llm.adapters import AdaptedDecoder
from tsbench.models.f_llm.plant import FrozenDecoder, Plant, plant_loss

RANK, ALPHA = 2, 6
PROJECTIONS = {"gpt2": ("c_attn",), "opt": ("q_proj", "v_proj"), "llama": ("q_proj", "v_proj")}
EACH_FAMILY = pytest.mark.parametrize("kind", list(PROJECTIONS))


def tokens(rows: int = 3) -> Tensor:
    return torch.randn(rows, 5, 16, generator=torch.Generator().manual_seed(3))


def randomise(decoder: AdaptedDecoder) -> None:
    generator = torch.Generator().manual_seed(4)
    for weight in decoder.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3


def merged(model: Any, kind: str, decoder: AdaptedDecoder) -> nn.Module:
    """The language model with W + (alpha / r) B A in place of W, by hand."""
    adapters = iter(decoder.adapters)
    for name, layer in model.named_modules():
        if name.endswith(PROJECTIONS[kind]):
            down, up = (part.weight for part in next(adapters))  # type: ignore[attr-defined]
            update = ALPHA / RANK * up @ down
            layer.weight.data = layer.weight.data + (update.T if kind == "gpt2" else update)
    assert next(adapters, None) is None
    return model  # type: ignore[no-any-return]


@EACH_FAMILY
def test_untrained_adapters_change_nothing(kind: str) -> None:
    model = language_model(kind)
    adapted, frozen = AdaptedDecoder(model, RANK, ALPHA), FrozenDecoder(model)
    assert torch.equal(adapted(tokens())[0], frozen(tokens())[0])


@EACH_FAMILY
def test_adapters_are_a_low_rank_update_of_the_projections(kind: str) -> None:
    decoder = AdaptedDecoder(language_model(kind), RANK, ALPHA)
    randomise(decoder)
    by_hand = FrozenDecoder(merged(language_model(kind), kind, decoder))
    torch.testing.assert_close(decoder(tokens())[0], by_hand(tokens())[0], rtol=1e-4, atol=1e-5)


@EACH_FAMILY
def test_the_given_model_is_not_touched_and_its_weights_are_not_copied(kind: str) -> None:
    model = language_model(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    alone = FrozenDecoder(model)(tokens())[0]
    decoder = AdaptedDecoder(model, RANK, ALPHA)
    randomise(decoder)
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(FrozenDecoder(model)(tokens())[0], alone)
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    inside = {parameter.data_ptr() for parameter in decoder._decoder.language_model.parameters()}
    assert shared <= inside


def test_only_projections_and_adapters_are_trained_and_saved() -> None:
    torch.manual_seed(0)
    plant = Plant(CONFIG, AdaptedDecoder(language_model("llama"), RANK, ALPHA))
    count = 2 * 2 * (RANK * 16 + 16 * RANK)  # blocks x projections x (A and B)
    saved = {name for name in plant.state_dict() if name.startswith("decoder.")}
    assert sum(plant.state_dict()[name].numel() for name in saved) == count
    frozen = {
        name: tensor.clone()
        for name, tensor in plant.decoder._decoder.language_model.named_parameters()  # type: ignore[attr-defined]
        if "lora" not in name
    }
    optimiser = torch.optim.Adam(plant.parameters(), lr=0.1)
    windows = contexts(8, CONFIG.lookback + CONFIG.patch)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = plant_loss(plant.train(), windows)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.abs().max() > 0 for parameter in plant.decoder.adapters.parameters())  # type: ignore[attr-defined]
    for name, tensor in plant.decoder._decoder.language_model.named_parameters():  # type: ignore[attr-defined]
        if "lora" not in name:
            assert torch.equal(tensor, frozen[name])

    again = Plant(CONFIG, AdaptedDecoder(language_model("llama"), RANK, ALPHA))
    again.load_state_dict(plant.state_dict())
    assert torch.equal(again(contexts(3)), plant.eval()(contexts(3)))


def test_adapters_stay_in_full_precision() -> None:
    model = language_model("llama").to(torch.bfloat16)
    decoder = AdaptedDecoder(model, RANK, ALPHA)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    assert decoder(tokens())[0].dtype == torch.bfloat16
