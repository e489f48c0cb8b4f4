"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tsbench.choices import (
    AlphaCriterion,
    AlphaPolicy,
    PlugMemSizeName,
    Precision,
    ProfileName,
    RecipeName,
    RollOutName,
)


class ExclusionName(StrEnum):
    """`tsbench.choices.Exclusion`; Typer repeats enumerations, not literals."""

    SELF = "self"
    TARGET = "target"
    WINDOW = "window"


class Ablation(StrEnum):
    """`tsbench.choices.AblationName`."""

    NONE = "none"
    NO_DISTILLATION = "no-distillation"
    NO_GATE = "no-gate"
    NO_CONFIDENCE = "no-confidence"
    NO_REGULARISATION = "no-regularisation"
    NO_DELTA_ALIGN = "no-delta-align"
    NO_RETRIEVAL = "no-retrieval"


class Form(StrEnum):
    """`tsbench.choices.FLlmForm`."""

    CLOSED_LOOP = "closed-loop"
    OPEN_LOOP = "open-loop"
    LORA = "lora"
    MLP = "mlp"
    FPT = "fpt"


Method = Annotated[str, typer.Option(help="How the backbone is adapted; see `tsbench list methods`.")]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="Frozen model; see `tsbench list backbones`. Unless given: smollm2 for --method f-llm, "
        "dlinear for supervised, flame-small for the others."
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        help="Run the cells of a published table instead: a name of `tsbench list suites`, or your own TOML "
        "file. --backbone then takes the place of the table's; profile, seeds and the like go with it."
    ),
]
Only = Annotated[
    list[str], typer.Option("--only", help="With --suite: on these data sets alone. Several may follow.")
]
FineTune = Annotated[
    bool, typer.Option("--fine-tune", help="Train FLAME's weights on the train split; without it: zero-shot.")
]
Datasets = Annotated[
    list[str], typer.Option("--dataset", help="Data sets; see `tsbench list datasets`. Several may follow.")
]
Horizons = Annotated[
    list[int],
    typer.Option(
        "--horizon",
        help="Forecast steps. Several may follow. Unless given: 96; on M3 and M4 the official ones.",
    ),
]
Lookback = Annotated[
    int | None,
    typer.Option(
        help="Context steps. Unless given: 672 for --method f-llm, the paper's for --method supervised, 512 "
        "for the others; on M3 and M4 about two horizons for --method f-llm, whole series for the others."
    ),
]
Seeds = Annotated[list[int], typer.Option("--seed", help="Seeds. Several may follow.")]
Profile = Annotated[
    ProfileName, typer.Option(help="quick: minutes on a laptop; standard; paper: the full protocol.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
RollOut = Annotated[
    RollOutName,
    typer.Option(help="Past a backbone's own block: median (the paper's) or expand (keeps the intervals)."),
]
Checkpoint = Annotated[str | None, typer.Option(help="Hub id or directory of the backbone's weights.")]
Exclusions = Annotated[
    list[ExclusionName],
    typer.Option(
        "--exclusion",
        help="Train windows that may not be neighbours: self (the paper), target (|Δt| < H), "
        "window (|Δt| < L + H). Several may follow.",
    ),
]
Policy = Annotated[
    AlphaPolicy,
    typer.Option("--alpha-policy", help="Split that chooses α; oracle is the test split: leakage."),
]
Criterion = Annotated[AlphaCriterion, typer.Option("--alpha-criterion", help="Score that chooses α.")]
Recipe = Annotated[RecipeName, typer.Option(help="Training loss: Eq. 20, or the authors' code's.")]
Ablations = Annotated[
    list[Ablation],
    typer.Option("--ablation", help="Part of the objective to leave out. Several may follow."),
]
PlugMem = Annotated[
    PlugMemSizeName | None, typer.Option(help="Size of the memory module; the profile's unless given.")
]
_TRANSFER = "Transfer"
PlugMemFrom = Annotated[
    str | None,
    typer.Option(
        "--plugmem-from",
        help="Backbone that TS-Memory's memory module is trained for, before it is fused with --backbone. "
        "Unless given: --backbone itself.",
        rich_help_panel=_TRANSFER,
    ),
]
TrainDatasets = Annotated[
    list[str],
    typer.Option(
        "--train-dataset",
        help="What is trained on instead of --dataset: of ts-memory and lora long data sets, several for a "
        "pool (ETT: all four); of f-llm on M3 and M4 one collection, unless given the paper's.",
        rich_help_panel=_TRANSFER,
    ),
]
PrecisionChoice = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Of what is trained and of language models; unless given, fp32 for supervised networks and bf16 "
        "for others where the processor has it.",
    ),
]
_F_LLM = "F-LLM"
Forms = Annotated[
    list[Form],
    typer.Option(
        "--form",
        help="closed-loop: the method; open-loop: without feedback; lora: adapters instead of feedback; "
        "mlp: an MLP for the language model; fpt: one linear head for the roll-out. Several may follow.",
        rich_help_panel=_F_LLM,
    ),
]
Patch = Annotated[
    int | None,
    typer.Option(
        help="Steps per patch. Unless given: 96; on M3 and M4 the horizon.", min=1, rich_help_panel=_F_LLM
    ),
]
Layers = Annotated[
    int | None,
    typer.Option(
        help="Blocks of the language model that are used; all unless given.",
        min=1,
        rich_help_panel=_F_LLM,
    ),
]
ObserverWindow = Annotated[
    int, typer.Option(help="Past residuals the observer sees.", min=1, rich_help_panel=_F_LLM)
]
ObserverSeed = Annotated[
    Literal["lookback", "zeros"],
    typer.Option(help="First residuals: the context's own, or none.", rich_help_panel=_F_LLM),
]
Context = Annotated[
    Literal["sliding", "growing"],
    typer.Option(
        "--context", help="Whether the oldest patch is dropped at each step.", rich_help_panel=_F_LLM
    ),
]
Lipschitz = Annotated[
    Literal["probe", "spectral", "none"],
    typer.Option(help="Penalty on the de-embedding: Eq. 11, its maximum, none.", rich_help_panel=_F_LLM),
]
Diagnose = Annotated[
    Literal["stability"] | None,
    typer.Option(
        help="With `tsbench eval`: also measure the closed loop's error at each roll-out step, its Jacobian "
        "and the slope of the de-embedding, beside the paper's bound.",
        rich_help_panel=_F_LLM,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Also draw this many paths per window and channel and score them (CRPS by samples); for "
        "backbones that draw paths: the FLAME family."
    ),
]
TestStride = Annotated[int | None, typer.Option(help="Steps between test windows; overrides the profile.")]
TrainStride = Annotated[
    int | None,
    typer.Option(
        help="Steps between windows that are trained on; overrides the profile. One stride for several "
        "horizons lets the longest one's pass serve them all.",
        min=1,
    ),
]
DropLast = Annotated[
    int | None,
    typer.Option(help="Drop the last incomplete test batch of this size, to reproduce older tables."),
]
Csv = Annotated[
    Path | None, typer.Option(help="Your own file: a timestamp column, then one column per channel.")
]
Frequency = Annotated[str | None, typer.Option("--freq", help="Step of --csv, such as 1h, 15min, 1D.")]
SplitText = Annotated[
    str, typer.Option("--split", help="Split of --csv: shares 0.7,0.1,0.2 or rows 8640,2880,2880.")
]
Results = Annotated[Path, typer.Option(help="Directory of the results.")]
Mirror = Annotated[
    Path | None, typer.Option(help="Local copy of the public data; also TSBENCH_MIRROR.", exists=True)
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads of each worker. Unless given: PyTorch's choice; with --jobs or --executor ray an "
        "equal share.",
        min=1,
    ),
]
_WORKERS = "Workers"
Jobs = Annotated[
    int,
    typer.Option(
        help="Cells that run at once, each in a process of its own.", min=1, rich_help_panel=_WORKERS
    ),
]
Executor = Annotated[
    Literal["local", "ray"],
    typer.Option(help="local: processes of this machine; ray: a Ray cluster.", rich_help_panel=_WORKERS),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join: host:port of its head node, or auto. Unless given, one is started here.",
        rich_help_panel=_WORKERS,
    ),
]
PlanFormat = Annotated[
    Literal["json"] | None,
    typer.Option("--format", help="With `tsbench plan`: print JSON instead of tables."),
]
