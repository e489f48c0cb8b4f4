"""Networks inside forecasters: every parameter counts once, and compiling reaches what it says it reaches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from safetensors.torch import load_file

from tsbench.backbones.base import BackboneOptions
from tsbench.backbones.flame import FlameBackbone, make_backbone
from tsbench.bench import latency
from tsbench.bench.latency import prepare, run_latency
from tsbench.bench.latency_grid import latency_specs
from tsbench.bench.networks import compiled, parameter_count, require_compilable
from tsbench.bench.runner import Bench
from tsbench.bench.store import ResultsStore
from tsbench.config import LatencySpec
from tsbench.errors import TsbenchError
from tsbench.methods.fusion import FusedForecaster
from tsbench.methods.online_retrieval import RetrievalForecaster, granular_keys
from tsbench.methods.ts_memory.distillation import PlugMemForecaster
from tsbench.models.flame.model import Flame, FlameConfig
from tsbench.models.plugmem import PlugMem, PlugMemConfig
from tsbench.models.plugmem import parameter_count as plugmem_parameters
from tsbench.registry import load_backbone

SPEC = LatencySpec(
    methods=("origin", "raft", "ts-rag", "ts-memory"),
    backbone="toy",
    dataset="demo",
    horizon=12,
    lookback=48,
    plugmem="tiny",
    threads=1,
    compiled=True,
)


def tiny_flame() -> FlameBackbone:
    torch.manual_seed(0)
    config = FlameConfig(width=16, encoder_layers=1, decoder_layers=1, heads=2, legendre_order=4)
    return make_backbone("toy", Flame(config))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TSBENCH_HOME", str(tmp_path / "home"))
    toy.install(monkeypatch)
    monkeypatch.setattr(toy, "load", lambda options: tiny_flame())
    return Bench(ResultsStore(tmp_path / "results"))


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every graph that torch.compile traces, by a compiler that leaves graphs as they are."""
    traced: list[Any] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        traced.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    yield traced
    torch.compiler.reset()


def test_every_parameter_of_fracast_counts_alone_and_beside_plugmem() -> None:
    package = pytest.importorskip("fracast").FracastModel.from_pretrained(weights="fp32")
    network = torch.nn.ModuleList([package.core, package.head])
    expected = sum(weight.numel() for weight in network.parameters())
    backbone = load_backbone(BackboneOptions("fracast"))
    assert parameter_count(backbone) == expected == 85_001
    config = PlugMemConfig.preset("tiny", 48, 12)
    fused = FusedForecaster(backbone, PlugMemForecaster(PlugMem(config), backbone.quantile_levels), 0.5)
    assert parameter_count(fused) == expected + plugmem_parameters(config)


@pytest.mark.parametrize(
    ("fixture", "name"), [("tiny_bolt", "chronos-bolt-tiny"), ("tiny_chronos2", "chronos-2")]
)
def test_chronos_has_the_parameters_of_its_checkpoint(
    fixture: str, name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(fixture)
    backbone = load_backbone(BackboneOptions(name, checkpoint=str(folder)))
    stored = load_file(folder / "model.safetensors")
    weights = {name for name, _ in backbone.model.named_parameters()}  # type: ignore[attr-defined]
    assert parameter_count(backbone) == sum(stored[name].numel() for name in weights)
    require_compilable(backbone, 100)


def test_a_network_that_forecasters_share_counts_once_and_a_naive_forecast_has_none(bench: Bench) -> None:
    backbone = tiny_flame()
    prepared = prepare(bench, SPEC.model_copy(update={"compiled": False}), backbone)
    counts = {method: parameter_count(each.forecaster) for method, each in prepared.fitted.items()}
    alone = sum(weight.numel() for weight in backbone.model.parameters())
    memory = plugmem_parameters(PlugMemConfig.preset("tiny", SPEC.lookback, SPEC.horizon))
    assert counts == {"origin": alone, "raft": alone, "ts-rag": alone, "ts-memory": alone + memory}
    naive = load_backbone(BackboneOptions("naive-last"))
    assert parameter_count(naive) is None
    require_compilable(naive, 48)


def test_a_network_that_is_never_called_is_refused() -> None:
    pytest.importorskip("fracast")
    with pytest.raises(TsbenchError, match="--compile does not reach the network of fracast"):
        require_compilable(load_backbone(BackboneOptions("fracast")), 48)


def test_the_refusal_comes_before_any_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Apart(FlameBackbone):
        def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
            return self.model.embed(context)[:, None, :horizon].expand(-1, 9, -1)

    whole = tiny_flame()
    monkeypatch.setattr(
        toy, "load", lambda options: Apart("apart", whole.model, whole.rollout, whole.identity)
    )
    lines: list[str] = []
    bench.progress = lines.append
    with pytest.raises(TsbenchError, match="does not reach the network of apart"):
        run_latency(bench, [SPEC])
    assert not lines


def test_the_encoders_pass_of_a_query_is_compiled_and_rafts_keys_are_no_network(
    bench: Bench, graphs: list[Any]
) -> None:
    backbone = tiny_flame()
    eager = prepare(bench, SPEC.model_copy(update={"compiled": False}), backbone)
    forecasters = compiled({method: each.forecaster for method, each in eager.fitted.items()})
    context = torch.randn(2, SPEC.lookback, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    represent = {method: _memory(forecasters[method]).represent for method in ("raft", "ts-rag")}
    assert represent["raft"] is granular_keys
    expected = backbone.embed(context)
    assert not graphs
    torch.testing.assert_close(represent["ts-rag"](context), expected)
    assert graphs


def _memory(forecaster: Any) -> Any:
    assert isinstance(forecaster, FusedForecaster)
    assert isinstance(forecaster.companion, RetrievalForecaster)
    return forecaster.companion.memory


@dataclass(frozen=True, eq=False)
class Perceptron(toy.Toy):
    """Forecasts and embeds by one linear layer over the last day."""

    network: torch.nn.Linear = field(default_factory=lambda: torch.nn.Linear(24, 9).requires_grad_(False))

    def predict(self, context: torch.Tensor, horizon: int) -> torch.Tensor:
        quantiles: torch.Tensor = self.network(context[:, -24:])
        return quantiles.sort(dim=1).values[..., None].expand(-1, -1, horizon)

    def embed(self, context: torch.Tensor) -> torch.Tensor:
        return self.network(context[:, -24:])  # type: ignore[no-any-return]


def test_nothing_is_compiled_in_a_round_that_counts_and_settings_are_compiled_apart(
    bench: Bench, graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    after: list[int] = []

    def counting(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            after.append(len(graphs))
            return result

        return call

    monkeypatch.setattr(toy, "load", lambda options: Perceptron(options.name, season=24))
    monkeypatch.setattr(latency, "predict_in_stages", counting(latency.predict_in_stages))
    asked = {"methods": ["origin", "ts-rag"], "backbone": "toy", "datasets": ["demo"], "horizons": [12, 24]}
    specs = latency_specs(
        **asked,  # type: ignore[arg-type]
        **{"batches": [2], "end_to_end": True, "test_stride": 100, "compiled": True},
        **{"lookback": 48, "repeats": 2, "warm_up": 1, "threads": 1},
    )
    assert [spec.batch for spec in specs] == [2, None, 2, None]
    for spec in specs:
        after[:] = [before := len(graphs)]
        run_latency(bench, [spec])
        calls_per_round = (len(after) - 1) // (spec.warm_up + spec.repeats)
        assert before < after[calls_per_round * spec.warm_up] == after[-1]
