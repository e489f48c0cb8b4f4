"""The command that measures what a query costs."""

from pathlib import Path
from typing import Annotated

import typer

from tsbench.choices import PlugMemSizeName, TimingPrecision
from tsbench.cli import Command, app, table_console
from tsbench.cli import options as opt
from tsbench.cli.bench import prepare_bench


@app.command(cls=Command)
def latency(
    method: Annotated[
        list[str],
        typer.Option("--method", help="origin, raft, ts-rag, lora, ts-memory. Several may follow."),
    ] = ["origin", "ts-memory"],
    backbone: Annotated[
        str, typer.Option(help="Below all methods; see `tsbench list backbones`.")
    ] = "flame-small",
    random_init: Annotated[
        bool,
        typer.Option(
            "--random-init",
            help="Random weights of the true shape, for Chronos-Bolt, Chronos-2 and FLAME. Time does not "
            "depend on their values.",
        ),
    ] = False,
    dataset: opt.Datasets = ["ETTh1"],
    horizon: opt.Horizons = [96],
    lookback: Annotated[int, typer.Option(help="Context steps.", min=1)] = 512,
    batch: Annotated[
        list[int], typer.Option("--batch", help="Queries per call. Several may follow.", min=1)
    ] = [1, 64],
    repeats: Annotated[int, typer.Option(help="Timed rounds.", min=1)] = 50,
    warm_up: Annotated[int, typer.Option(help="Rounds before them that do not count.", min=0)] = 5,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Also time one evaluation of the test windows.")
    ] = False,
    test_stride: Annotated[int, typer.Option(help="Steps between those test windows.", min=1)] = 1,
    cold_start: Annotated[
        bool,
        typer.Option(
            "--cold-start",
            help="Also measure load time, first forecast and memory in a fresh process per method.",
        ),
    ] = False,
    dtype: Annotated[
        TimingPrecision, typer.Option(help="Number format of the networks, by autocast.")
    ] = "fp32",
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Run the networks through torch.compile; warm-up rounds compile."),
    ] = False,
    plugmem: Annotated[
        PlugMemSizeName, typer.Option(help="Size of the memory module, which LoRA's adapters match.")
    ] = "base",
    rollout: opt.RollOut = "median",
    checkpoint: opt.Checkpoint = None,
    csv: opt.Csv = None,
    freq: opt.Frequency = None,
    split: opt.SplitText = "0.7,0.1,0.2",
    device: opt.Device = "cpu",
    threads: opt.Threads = None,
    results: opt.Results = Path("results"),
    mirror: opt.Mirror = None,
) -> None:
    """Measure what a query costs: retrieval, forward pass, fusion, with percentiles and intervals.

    Methods are timed side by side on the same queries, untrained; the time does not depend on training.

    Example: `tsbench latency --method origin raft ts-rag lora ts-memory --backbone chronos-bolt-base
    --random-init --dataset ETTh1 --horizon 96 192 336 720 --batch 1 64 --threads 1`

    Example: `tsbench latency --dataset demo --end-to-end --test-stride 24`
    """
    import torch

    from tsbench.bench.latency import run_latency
    from tsbench.bench.latency_grid import check_latency, latency_specs
    from tsbench.data.plugins import load_plugins
    from tsbench.report.latency import latency_tables
    from tsbench.report.render import rich_table

    bench = prepare_bench(results, mirror, csv, freq, split, threads)
    catalogued, others = load_plugins([] if csv else dataset)
    bench.own_data.update(others)
    specs = latency_specs(
        methods=method,
        backbone=backbone,
        datasets=catalogued,
        own_data=bench.own_data,
        horizons=horizon,
        batches=batch,
        end_to_end=end_to_end,
        test_stride=test_stride,
        repeats=repeats,
        warm_up=warm_up,
        random_init=random_init,
        lookback=lookback,
        plugmem=plugmem,
        rollout=rollout,
        checkpoint=checkpoint,
        precision=dtype,
        compiled=compile,
        threads=threads or torch.get_num_threads(),
        device=device,
    )
    check_latency(bench, specs)
    console = table_console()
    for table in latency_tables(run_latency(bench, specs, cold_starts=cold_start)):
        console.print(rich_table(table))
        console.print()
