"""Commands that measure: run and its stages."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tsbench.cli import EXIT_FAILED_CELL, Command, app
from tsbench.cli import options as opt
from tsbench.cli.plan import print_costs
from tsbench.cli.suite import refuse_other_grid, run_suite
from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.bench.grid import Settings
    from tsbench.bench.runner import Bench
    from tsbench.config import CellSpec
    from tsbench.data.dataset import Dataset


def prepare_bench(
    results: Path, mirror: Path | None, csv: Path | None, freq: str | None, split: str, threads: int | None
) -> "Bench":
    """What all cells of a command share; progress goes to standard error."""
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


def _stage(name: str, summary: str, examples: str, act: Callable[["Bench", "list[CellSpec]"], None]) -> None:
    """Register a command that spans a grid of cells and acts on it; all stages take the same options."""

    @app.command(name, cls=Command, help=f"{summary}\n\n{examples}")
    def stage(
        ctx: typer.Context,
        suite: opt.Suite = None,
        only: opt.Only = [],
        method: opt.Method = "ts-memory",
        backbone: opt.Backbone = None,
        dataset: opt.Datasets = [],
        horizon: opt.Horizons = [],
        lookback: opt.Lookback = None,
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
        form: opt.Forms = [opt.Form.CLOSED_LOOP],
        patch: opt.Patch = None,
        layers: opt.Layers = None,
        observer_window: opt.ObserverWindow = 4,
        observer_seed: opt.ObserverSeed = "lookback",
        context: opt.Context = "sliding",
        lipschitz: opt.Lipschitz = "probe",
        diagnose: opt.Diagnose = None,
        rollout: opt.RollOut = "median",
        checkpoint: opt.Checkpoint = None,
        samples: opt.Samples = None,
        test_stride: opt.TestStride = None,
        train_stride: opt.TrainStride = None,
        plugmem_from: opt.PlugMemFrom = None,
        train_dataset: opt.TrainDatasets = [],
        drop_last: opt.DropLast = None,
        csv: opt.Csv = None,
        freq: opt.Frequency = None,
        split: opt.SplitText = "0.7,0.1,0.2",
        device: opt.Device = "cpu",
        threads: opt.Threads = None,
        jobs: opt.Jobs = 1,
        executor: opt.Executor = "local",
        address: opt.Address = None,
        results: opt.Results = Path("results"),
        mirror: opt.Mirror = None,
        format: opt.PlanFormat = None,
    ) -> None:
        started = time.perf_counter()
        from tsbench.bench.executor import plan_workers
        from tsbench.bench.grid import cells, variants
        from tsbench.bench.plan import plan_suite
        from tsbench.config import PROFILES, FLlmOptions
        from tsbench.data.plugins import load_plugins

        if suite is not None:
            refuse_other_grid(ctx, name)
        elif only:
            raise TsbenchError("--only goes with --suite; without it name the data sets with --dataset")
        if format is not None and name != "plan":
            raise TsbenchError(f"--format goes with `tsbench plan`, not with {name}; leave it out")
        bench = prepare_bench(results, mirror, csv, freq, split, threads)
        bench.writes = name != "plan"
        bench.workers = plan_workers(executor, jobs, threads, device, address)
        catalogued, others = load_plugins(dataset)
        bench.own_data.update(others)
        memories = variants(
            exclusions=[str(rule) for rule in exclusion],
            ablations=[str(part) for part in ablation],
            recipe=recipe,
            plugmem=plugmem or PROFILES[profile].plugmem,
            alpha_policy=alpha_policy,
            alpha_criterion=alpha_criterion,
        )
        loops = [
            FLlmOptions.model_validate(
                {
                    "form": str(each),
                    "layers": layers,
                    "observer_window": observer_window,
                    "observer_seed": observer_seed,
                    "context": context,
                    "lipschitz": lipschitz,
                    **({"patch": patch} if patch else {}),
                }
            )
            for each in form
        ]
        settings: Settings = {"ts-memory": memories, "f-llm": loops}
        shared: dict[str, Any] = {
            "seeds": seed,
            "profile": profile,
            "rollout": rollout,
            "checkpoint": checkpoint,
            "test_stride": test_stride,
            "train_stride": train_stride,
            "drop_last": drop_last,
            "precision": precision,
            "device": device,
        }
        if suite is not None:
            planned = plan_suite(bench, suite, only=only, backbone=backbone, settings=settings, **shared)
            if name == "plan":
                print_costs(bench, planned.cells, planned.missing, format, started)
                return
            _exit_on_failure(run_suite(bench, planned, baselines=name == "run"))
            return
        asked = cells(
            method=method,
            backbone=backbone,
            fine_tune=fine_tune,
            datasets=catalogued or ([] if bench.own_data else ["ETTh1"]),
            own_data=bench.own_data,
            horizons=horizon,
            variants=settings.get(method, (None,)),
            lookback=lookback,
            samples=samples,
            train_datasets=train_dataset,
            plugmem_from=plugmem_from,
            **shared,
        )
        diagnosed = _closed_loops(name, asked) if diagnose else []
        act(bench, asked)
        if name == "plan":
            print_costs(bench, asked, {}, format, started)
        for spec in diagnosed:
            _diagnose(bench, spec)


def _check_run(bench: "Bench", cells: "list[CellSpec]") -> None:
    from tsbench.bench.checks import check
    from tsbench.bench.runner import with_baselines

    check(bench, with_baselines(cells))


def _build_teachers(bench: "Bench", cells: "list[CellSpec]") -> None:
    from tsbench.bench.checks import check
    from tsbench.bench.runner import build_teachers

    check(bench, cells)
    _exit_on_failure(build_teachers(bench, cells))


def _train(bench: "Bench", cells: "list[CellSpec]") -> None:
    from tsbench.bench.checks import check
    from tsbench.bench.runner import train_cells

    check(bench, cells)
    _exit_on_failure(train_cells(bench, cells))


def _run(bench: "Bench", cells: "list[CellSpec]") -> None:
    from tsbench.bench.runner import with_baselines

    _evaluate(bench, with_baselines(cells))


def _evaluate(bench: "Bench", cells: "list[CellSpec]") -> None:
    from tsbench.bench.checks import check
    from tsbench.bench.records import Record
    from tsbench.bench.runner import run_cells
    from tsbench.cli.report import print_tables

    check(bench, cells)
    outcomes = run_cells(bench, cells)
    print_tables([outcome for outcome in outcomes if isinstance(outcome, Record)])
    _exit_on_failure(outcomes)


def _closed_loops(stage: str, cells: "list[CellSpec]") -> "list[CellSpec]":
    """The cells whose stability is asked for; whatever forbids it is found before any work."""
    from tsbench.data.catalog import find_collection
    from tsbench.report.figures.canvas import require_matplotlib

    if stage != "eval":
        raise TsbenchError(f"--diagnose goes with `tsbench eval`, not with {stage}; leave it out")
    closed = [spec for spec in cells if spec.f_llm is not None and spec.f_llm.form == "closed-loop"]
    found = [spec for spec in closed if not find_collection(spec.dataset)]
    if not found:
        raise TsbenchError(
            "--diagnose stability is about F-LLM's closed loop on long data sets; "
            "add --method f-llm --form closed-loop and a --dataset such as ETTh1"
        )
    require_matplotlib()
    return found


def _diagnose(bench: "Bench", spec: "CellSpec") -> None:
    """Print the stability of a cell, and draw it beside its file."""
    from tsbench.bench.diagnoses import diagnose_cell
    from tsbench.report.render import render
    from tsbench.report.stability import draw_stability, stability_tables

    found, path = diagnose_cell(bench, spec)
    typer.echo(render(stability_tables(found), "markdown"))
    draw_stability(found, path)
    bench.progress(f"stability: {path}, with figures .png and .pdf")


def _exit_on_failure(outcomes: Iterable[object]) -> None:
    from tsbench.bench.records import Failure
    from tsbench.bench.runner import describe

    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    for failure in failures:
        typer.echo(f"failed: {describe(failure.spec)}: {' '.join(failure.error.split())}", err=True)
    if failures:
        raise typer.Exit(EXIT_FAILED_CELL)


_stage(
    "plan",
    "Say what `tsbench run` with the same options would take: which cells are done, what of the forecasts, "
    "embeddings, teachers and trained networks is there, and the time, memory and disk of the rest. A few "
    "batches and training steps are run to measure this machine; nothing is stored.",
    "Example: `tsbench plan --suite ts-memory-table3 --only ETTh1`\n\n"
    "Example: `tsbench plan --method lora --dataset ETTh1 --horizon 96 192 --profile quick`\n\n"
    "Example: `tsbench plan --suite mine.toml --format json`",
    _check_run,
)
_stage(
    "build-teacher",
    "Embed the train windows with the frozen backbone and store the teacher's quantiles.",
    "Example: `tsbench build-teacher --dataset ETTh1 --backbone flame-small`",
    _build_teachers,
)
_stage(
    "train",
    "Train the memory module and choose the fusion weight, or train F-LLM, FLAME or LoRA, on train and "
    "validation split.",
    "Example: `tsbench train --method ts-memory --dataset ETTh1 --horizon 96`",
    _train,
)
_stage(
    "eval",
    "Score a method on the test windows; what it needs and is not there yet is built first.",
    "Example: `tsbench eval --method ts-memory --dataset ETTh1 --horizon 96 192 336 720`\n\n"
    "Example: `tsbench eval --method f-llm --layers 8 --dataset ETTh1 --horizon 720 --diagnose stability`",
    _evaluate,
)
_stage(
    "run",
    "Download, build the teacher, train, evaluate, and print the table, with both naive forecasts, the "
    "backbone alone and the no-retrieval control beside the method. Every stage reuses what is there: an "
    "interrupted run continues where it stopped.",
    "Example: `tsbench run --method ts-memory --backbone flame-small --dataset ETTh1 --horizon 96`\n\n"
    "Example: `tsbench run --method ts-memory --backbone fracast --plugmem-from flame-small`\n\n"
    "Example: `tsbench run --method ts-memory --dataset ETTh1 --train-dataset ETTh2 ETTm1 ETTm2`\n\n"
    "Example: `tsbench run --method flame --dataset ETTh1 --horizon 96 192 336 720`\n\n"
    "Example: `tsbench run --method f-llm --backbone smollm2 --layers 8 --dataset ETTh1 --horizon 96`\n\n"
    "Example: `tsbench run --method f-llm --dataset M3-Monthly --train-dataset M4-Monthly`\n\n"
    "Example: `tsbench run --method origin --backbone flame-small --dataset M3 M4-Hourly`\n\n"
    "Example: `tsbench run --suite ts-memory-table3 --only ETTh1`\n\n"
    "Example: `tsbench run --dataset demo --profile quick`\n\n"
    "Example: `tsbench run --dataset ETTh1 ETTh2 --seed 0 1 2 --jobs 4`\n\n"
    "Example: `tsbench run --csv sales.csv --freq 1D --split 0.7,0.1,0.2 --horizon 28 --lookback 112`",
    _run,
)
