"""From what a user asks to be timed to the list of settings, with the mistakes found before any work."""

import os
import shutil
from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

from tsbench.bench.checks import check
from tsbench.bench.mistakes import Mistakes
from tsbench.bench.runner import NAIVE_BACKBONES, Bench
from tsbench.config import LatencySpec
from tsbench.data.catalog import find_collection, resolve
from tsbench.errors import TsbenchError
from tsbench.registry import find, require_installed


def latency_specs(
    *,
    methods: Iterable[str],
    backbone: str,
    datasets: Iterable[str],
    horizons: Iterable[int],
    batches: Iterable[int],
    end_to_end: bool,
    test_stride: int,
    compiled: bool = False,
    device: str = "cpu",
    own_data: Collection[str] = (),
    **common: Any,
) -> list[LatencySpec]:
    """Every combination, data set by data set and horizon by horizon.

    Args:
        methods: Names or aliases; each setting has all of them.
        backbone: Name or alias.
        datasets: Names of data sets or groups of the catalogue.
        horizons: Forecast steps.
        batches: Queries per call.
        end_to_end: Also time one evaluation of the test windows per data set and horizon.
        test_stride: Steps between those test windows.
        compiled: Run networks through torch.compile; an evaluation then comes after one that does not count.
        device: Where it runs; on a GPU, whose first calls load their kernels, the same holds.
        own_data: Names of data sets that are not in the catalogue.
        **common: Further fields that all settings share.

    Raises:
        TsbenchError: Names are unknown or values out of range; one line per mistake.
    """
    mistakes = Mistakes()
    names: list[str] = []
    for typed in methods:
        with mistakes.noting():
            names.append(find("method", typed).name)
    with mistakes.noting():
        backbone = find("backbone", backbone).name
    members: list[str] = []
    for name in datasets:
        with mistakes.noting():
            members += [entry.name for entry in resolve([name])]
    first = int(compiled or device != "cpu")
    evaluation = {"batch": None, "repeats": 1, "warm_up": first, "test_stride": test_stride}
    variants: list[dict[str, Any]] = [{"batch": batch} for batch in dict.fromkeys(batches)]
    specs = []
    for dataset, horizon in product(dict.fromkeys((*members, *own_data)), dict.fromkeys(horizons)):
        for variant in (*variants, *([evaluation] if end_to_end else [])):
            setting = {
                "dataset": dataset,
                "horizon": horizon,
                "backbone": backbone,
                "device": device,
                "compiled": compiled,
            }
            with mistakes.noting():
                fields = common | setting | variant | {"methods": tuple(dict.fromkeys(names))}
                specs.append(LatencySpec.model_validate(fields))
    mistakes.raise_any()
    return specs


def check_latency(bench: Bench, specs: Iterable[LatencySpec]) -> None:
    """Find every mistake that can be found before the first second of work.

    Raises:
        TsbenchError: One line per distinct mistake.
    """
    mistakes = Mistakes()
    with mistakes.noting():
        check(bench, ())
    for spec in specs:
        with mistakes.noting():
            _check_models(spec)
        with mistakes.noting():
            _check_data(bench, spec)
    mistakes.raise_any()


def _check_models(spec: LatencySpec) -> None:
    from tsbench.backbones.base import resolve_device
    from tsbench.backbones.random_weights import require_shape
    from tsbench.methods.untrained import UNTRAINED

    for method in spec.methods:
        if method not in UNTRAINED:
            raise TsbenchError(
                f"`tsbench latency` times {', '.join(UNTRAINED)}, which share a backbone, not {method}; "
                "leave it out"
            )
        require_installed("method", find("method", method))
    backbone = find("backbone", spec.backbone)
    require_installed("backbone", backbone)
    if backbone.role != "forecaster":
        raise TsbenchError(
            f"backbone '{backbone.name}' forecasts no windows as it is; choose flame-small or chronos-bolt"
        )
    if "ts-rag" in spec.methods and spec.backbone in NAIVE_BACKBONES:
        raise TsbenchError(
            f"method 'ts-rag' needs a backbone with an encoder; {spec.backbone} has none; "
            "choose flame-small or chronos-bolt"
        )
    resolve_device(spec.device)
    if spec.random_init:
        require_shape(spec.backbone)
        if spec.checkpoint is not None:
            raise TsbenchError("--random-init and --checkpoint exclude each other; leave one out")
    if spec.compiled and not spec.warm_up:
        raise TsbenchError("--compile compiles in the first round, which must not count; give --warm-up 1")
    if spec.compiled and not shutil.which(os.environ.get("CXX", "g++")):
        raise TsbenchError(
            "--compile needs a C++ compiler and found no g++; install one, name it in CXX, or leave it out"
        )


def _check_data(bench: Bench, spec: LatencySpec) -> None:
    from tsbench.data.splits import split_borders
    from tsbench.data.windows import window_grid

    if find_collection(spec.dataset):
        raise TsbenchError(
            f"queries are windows of a long data set, not of {spec.dataset}; use ETTh1 or demo"
        )
    dataset = bench.dataset(spec.dataset)
    borders = split_borders(dataset.split, len(dataset.values))
    window_grid(borders, "test", spec.lookback, spec.horizon, spec.test_stride)
    window_grid(borders, "train", spec.lookback, spec.horizon)
