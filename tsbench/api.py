"""The command line's abilities as functions."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    import pandas as pd

    from tsbench.backbones.base import Forecaster
    from tsbench.bench.runner import Bench
    from tsbench.choices import ProfileName
    from tsbench.config import CellSpec, FLlmOptions, TsMemoryOptions
    from tsbench.data.dataset import Dataset
    from tsbench.metrics.streaming import Scores


def load_dataset(name: str, mirror: Path | None = None) -> "Dataset":
    """Load a public data set, downloading it if needed.

    Args:
        name: Name in the catalogue, such as "ETTh1", or "demo".
        mirror: Local mirror; None stands for TSBENCH_MIRROR, or the network.

    Raises:
        TsbenchError: The name is unknown, or the files cannot be had or read.
    """
    from tsbench.data.load import load_dataset as load

    return load(name, mirror)


def run(
    method: str = "ts-memory",
    backbone: str | None = None,
    dataset: "str | Dataset | Iterable[str]" = "ETTh1",
    horizon: int | Iterable[int] | None = None,
    *,
    lookback: int | None = None,
    fine_tune: bool = False,
    seed: int | Iterable[int] = 0,
    profile: "ProfileName" = "standard",
    options: "TsMemoryOptions | FLlmOptions | None" = None,
    checkpoint: str | None = None,
    samples: int | None = None,
    test_stride: int | None = None,
    train_stride: int | None = None,
    train_dataset: str | Iterable[str] = (),
    plugmem_from: str | None = None,
    results: str | Path = "results",
    mirror: Path | None = None,
    device: str = "cpu",
    jobs: int = 1,
    baselines: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> "pd.DataFrame":
    """Run cells as `tsbench run` does, reusing what is stored.

    Args:
        method: Registered method.
        backbone: Registered backbone; None takes smollm2 for F-LLM and flame-small for others.
        dataset: Name or names in the catalogue or of other packages, or a data set of your own.
        horizon: Forecast steps, one or several; None takes 96, and the official ones of a collection.
        lookback: Context steps; None takes that of a supervised baseline's paper, 672 for F-LLM
            and 512 for others; of a collection about two
            horizons for F-LLM and whole series for others.
        fine_tune: Train FLAME on the data set instead of using it zero-shot.
        seed: Seed or seeds.
        profile: "quick", "standard" or "paper".
        options: Settings of TS-Memory or F-LLM; None takes the defaults and the profile's PlugMem.
        checkpoint: Hub id or directory of the backbone's weights; None takes the registered ones.
        samples: Paths to draw per window and channel for the CRPS by samples; None draws none. Only some
            backbones can, such as flame-small.
        test_stride: Steps between test windows; None takes the profile's.
        train_stride: Steps between windows that are trained on; None takes the profile's.
        train_dataset: What is trained on instead of `dataset`: of TS-Memory and LoRA one or several long data
            sets; of F-LLM the collection it forecasts another from, where none takes the paper's.
        plugmem_from: Backbone that TS-Memory's memory module is trained for; None takes `backbone`.
        results: Directory of the results.
        mirror: Local mirror of the public data.
        device: "cpu", "cuda" or "cuda:N".
        jobs: Cells that run at once, from 2 on each in a process of its own.
        baselines: Also run both naive forecasts, the backbone alone and the no-retrieval control.
        progress: Called with one line at each stage.

    Returns:
        One row per cell: its birth certificate and its metrics as columns.

    Raises:
        TsbenchError: Bad input, or a cell failed.
    """
    from tsbench.bench.checks import check
    from tsbench.bench.executor import plan_workers
    from tsbench.bench.grid import cells, default_settings
    from tsbench.bench.runner import Bench, with_baselines
    from tsbench.bench.store import ResultsStore
    from tsbench.config import profile as find_profile
    from tsbench.data.dataset import Dataset
    from tsbench.data.plugins import load_plugins

    names: list[str] = []
    if isinstance(dataset, Dataset):
        own = {dataset.name: dataset}
    else:
        names, own = load_plugins([dataset] if isinstance(dataset, str) else dataset)
    [default] = default_settings(find_profile(profile)).get(method, [None])
    if options is not None and type(options) is not type(default):
        raise TsbenchError(f"{type(options).__name__} is not for method '{method}'; leave it out")
    asked = cells(
        method=method,
        backbone=backbone,
        fine_tune=fine_tune,
        datasets=names,
        own_data=own,
        horizons=[horizon] if isinstance(horizon, int) else horizon or (),
        seeds=[seed] if isinstance(seed, int) else seed,
        variants=(options or default,),
        lookback=lookback,
        profile=profile,
        checkpoint=checkpoint,
        samples=samples,
        test_stride=test_stride,
        train_stride=train_stride,
        train_datasets=[train_dataset] if isinstance(train_dataset, str) else [*train_dataset],
        plugmem_from=plugmem_from,
        device=device,
    )
    workers = plan_workers("local", jobs, threads=None, device=device, address=None)
    bench = Bench(ResultsStore(Path(results)), mirror, own, progress, workers)
    wanted = with_baselines(asked) if baselines else asked
    check(bench, wanted)
    return _run(bench, wanted)


def run_suite(
    suite: str,
    *,
    only: Iterable[str] = (),
    backbone: str | None = None,
    seed: int | Iterable[int] = 0,
    profile: "ProfileName" = "standard",
    checkpoint: str | None = None,
    results: str | Path = "results",
    mirror: Path | None = None,
    device: str = "cpu",
    jobs: int = 1,
    baselines: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> "pd.DataFrame":
    """Run the cells of a published table as `tsbench run --suite` does; those that cannot run are left out.

    Args:
        suite: Name that `tsbench list suites` shows, or path of a TOML file.
        only: Data sets to keep; none keeps all.
        backbone: Takes the place of the table's; None keeps those.
        seed: Seed or seeds.
        profile: "quick", "standard" or "paper".
        checkpoint: Hub id or directory of the weights, where there is one backbone.
        results: Directory of the results.
        mirror: Local mirror of the public data.
        device: "cpu", "cuda" or "cuda:N".
        jobs: Cells that run at once, as for `run`.
        baselines: Also run both naive forecasts, the backbone alone and the no-retrieval control.
        progress: Called with one line at each stage; at first with what is done, to run and missing, and why.

    Returns:
        One row per cell that could run, as of `run`.

    Raises:
        TsbenchError: Bad input, or a cell failed.
    """
    from tsbench.bench.executor import plan_workers
    from tsbench.bench.grid import default_settings
    from tsbench.bench.plan import plan_suite
    from tsbench.bench.runner import Bench, with_baselines
    from tsbench.bench.store import ResultsStore
    from tsbench.config import profile as find_profile

    workers = plan_workers("local", jobs, threads=None, device=device, address=None)
    bench = Bench(ResultsStore(Path(results)), mirror, progress=progress, workers=workers)
    planned = plan_suite(
        bench,
        suite,
        only=only,
        backbone=backbone,
        settings=default_settings(find_profile(profile)),
        seeds=[seed] if isinstance(seed, int) else seed,
        profile=profile,
        checkpoint=checkpoint,
        device=device,
    )
    return _run(bench, with_baselines(planned.cells) if baselines else list(planned.cells))


def _run(bench: "Bench", wanted: "list[CellSpec]") -> "pd.DataFrame":
    import pandas as pd

    from tsbench.bench.columns import certificate
    from tsbench.bench.records import Failure, Record
    from tsbench.bench.runner import run_cells

    outcomes = run_cells(bench, wanted)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        raise TsbenchError("\n".join(f"{failed.spec.dataset}: {failed.error}" for failed in failures))
    records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
    return pd.DataFrame([certificate(record) | record.metrics | record.costs for record in records])


def evaluate(
    forecaster: "Forecaster",
    dataset: "Dataset",
    horizon: int,
    *,
    lookback: int = 512,
    stride: int = 1,
    drop_last: int | None = None,
    device: str = "cpu",
) -> "Scores":
    """Score your own forecaster on the test windows of a data set.

    The forecaster sees standardised contexts (mean and standard deviation of the train rows) and is scored
    in the same units, as the literature does, and by ProbTS's NMAE and CRPS in data units too.

    Args:
        forecaster: Anything with ``quantile_levels`` and ``predict(context [B, L], horizon) -> [B, Q, H]``.
        dataset: From `load_dataset`, or your own.
        horizon: Forecast steps H.
        lookback: Context steps L.
        stride: Steps between test windows.
        drop_last: Batch size of a loader that drops its last batch, to reproduce such tables.
        device: Where the forecaster runs, "cpu", "cuda" or "cuda:N"; on a GPU it gets more contexts a call.

    Returns:
        All scores; ``n_windows`` says how many windows they cover.

    Raises:
        TsbenchError: Horizon or lookback do not fit the data set.
    """
    from typing import cast

    from tsbench.backbones.base import Backbone
    from tsbench.backbones.forecast_cache import FrozenBackbone
    from tsbench.bench.evaluate import evaluate as score
    from tsbench.data.splits import Scaler, split_borders
    from tsbench.data.windows import window_grid

    borders = split_borders(dataset.split, len(dataset.values))
    grid = window_grid(borders, "test", lookback, horizon, stride, drop_last)
    scaler = Scaler.fit(dataset.values[slice(*borders.train)])
    scaled = scaler.transform(dataset.values)
    own = cast(Backbone, forecaster)
    frozen = FrozenBackbone(own, scaled, lookback, directory=None, budget_bytes=0, device=device)
    return score(forecaster, frozen, grid, scaler).scores
