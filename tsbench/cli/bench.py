"""Commands that measure: run and its stages."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tsbench.cli import EXIT_FAILED_CELL, Command, app
from tsbench.cli import options as opt
from tsbench.config import PROFILES, CellSpec
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.bench.runner import Bench
    from tsbench.data.dataset import Dataset


def _prepare(
    results: Path, mirror: Path | None, csv: Path | None, freq: str | None, split: str, threads: int | None
) -> "Bench":
    from tsbench.bench.runner import Bench
    from tsbench.bench.store import ResultsStore

    own = _own_data(csv, freq, split)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return Bench(ResultsStore(results), mirror, own, lambda line: typer.echo(line, err=True))


def _own_data(csv: Path | None, freq: str | None, split: str) -> "dict[str, Dataset]":
    if csv is None:
        return {}
    if freq is None:
        raise TsbenchError(f"--csv {csv} needs its step; add --freq, such as --freq 1h")
    from tsbench.data.splits import parse_split
    from tsbench.data.user_csv import read_user_csv

    dataset = read_user_csv(csv, freq, parse_split(split))
    return {dataset.name: dataset}


def _stage(name: str, summary: str, examples: str, act: Callable[["Bench", list[CellSpec]], None]) -> None:
    """Register a command that spans a grid of cells and acts on it; all stages take the same options."""

    @app.command(name, cls=Command, help=f"{summary}\n\n{examples}")
    def stage(
        method: opt.Method = "ts-memory",
        backbone: opt.Backbone = None,
        dataset: opt.Datasets = [],
        horizon: opt.Horizons = [96],
        lookback: opt.Lookback = 512,
        fine_tune: opt.FineTune = False,
        seed: opt.Seeds = [0],
        profile: opt.Profile = "standard",
        exclusion: opt.Exclusions = [opt.ExclusionName.TARGET],
        ablation: opt.Ablations = [opt.Ablation.NONE],
        recipe: opt.Recipe = "paper",
        plugmem: opt.PlugMem = None,
        precision: opt.PrecisionChoice = None,
        alpha_policy: opt.Policy = "val",
        alpha_criterion: opt.Criterion = "crps",
        rollout: opt.RollOut = "median",
        checkpoint: opt.Checkpoint = None,
        samples: opt.Samples = None,
        test_stride: opt.TestStride = None,
        train_stride: opt.TrainStride = None,
        drop_last: opt.DropLast = None,
        csv: opt.Csv = None,
        freq: opt.Frequency = None,
        split: opt.SplitText = "0.7,0.1,0.2",
        device: opt.Device = "cpu",
        threads: opt.Threads = None,
        results: opt.Results = Path("results"),
        mirror: opt.Mirror = None,
    ) -> None:
        from tsbench.bench.grid import cells, variants
        from tsbench.bench.provenance import preferred_precision

        bench = _prepare(results, mirror, csv, freq, split, threads)
        settings = variants(
            exclusions=[str(rule) for rule in exclusion],
            ablations=[str(part) for part in ablation],
            recipe=recipe,
            plugmem=plugmem or PROFILES[profile].plugmem,
            alpha_policy=alpha_policy,
            alpha_criterion=alpha_criterion,
        )
        asked = cells(
            method=method,
            backbone=backbone,
            fine_tune=fine_tune,
            datasets=dataset or ([] if bench.own_data else ["ETTh1"]),
            own_data=bench.own_data,
            horizons=horizon,
            seeds=seed,
            variants=settings if method == "ts-memory" else (None,),
            lookback=lookback,
            profile=profile,
            rollout=rollout,
            checkpoint=checkpoint,
            samples=samples,
            test_stride=test_stride,
            train_stride=train_stride,
            drop_last=drop_last,
            precision=precision or preferred_precision(device),
            device=device,
        )
        act(bench, asked)


def _build_teachers(bench: "Bench", cells: list[CellSpec]) -> None:
    from tsbench.bench.runner import build_teachers, check

    check(bench, cells)
    _exit_on_failure(build_teachers(bench, cells))


def _train(bench: "Bench", cells: list[CellSpec]) -> None:
    from tsbench.bench.runner import check, train_cells

    check(bench, cells)
    _exit_on_failure(train_cells(bench, cells))


def _run(bench: "Bench", cells: list[CellSpec]) -> None:
    from tsbench.bench.runner import with_baselines

    _evaluate(bench, with_baselines(cells))


def _evaluate(bench: "Bench", cells: list[CellSpec]) -> None:
    from tsbench.bench.records import Record
    from tsbench.bench.runner import check, run_cells
    from tsbench.cli.report import print_tables

    check(bench, cells)
    outcomes = run_cells(bench, cells)
    print_tables([outcome for outcome in outcomes if isinstance(outcome, Record)])
    _exit_on_failure(outcomes)


def _exit_on_failure(outcomes: Iterable[object]) -> None:
    from tsbench.bench.records import Failure
    from tsbench.bench.runner import describe

    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    for failure in failures:
        typer.echo(f"failed: {describe(failure.spec)}: {' '.join(failure.error.split())}", err=True)
    if failures:
        raise typer.Exit(EXIT_FAILED_CELL)


_stage(
    "build-teacher",
    "Embed the train windows with the frozen backbone and store the teacher's quantiles.",
    "Example: `tsbench build-teacher --dataset ETTh1 --backbone fracast`",
    _build_teachers,
)
_stage(
    "train",
    "Train the memory module and choose the fusion weight on the validation split.",
    "Example: `tsbench train --method ts-memory --dataset ETTh1 --horizon 96`",
    _train,
)
_stage(
    "eval",
    "Score a method on the test windows; what it needs and is not there yet is built first.",
    "Example: `tsbench eval --method ts-memory --dataset ETTh1 --horizon 96 192 336 720`",
    _evaluate,
)
_stage(
    "run",
    "Download, build the teacher, train, evaluate, and print the table, with both naive forecasts, the "
    "backbone alone and the no-retrieval control beside the method. Every stage reuses what is there: an "
    "interrupted run continues where it stopped.",
    "Example: `tsbench run --method ts-memory --backbone fracast --dataset ETTh1 --horizon 96`\n\n"
    "Example: `tsbench run --method flame --dataset ETTh1 --horizon 96 192 336 720`\n\n"
    "Example: `tsbench run --dataset demo --profile quick`\n\n"
    "Example: `tsbench run --csv sales.csv --freq 1D --split 0.7,0.1,0.2 --horizon 28 --lookback 112`",
    _run,
)
