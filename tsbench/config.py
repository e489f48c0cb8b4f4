"""What a benchmark cell is: one method on one backbone, data set and horizon, under one profile."""

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsbench.choices import (
    AblationName,
    AlphaCriterion,
    AlphaPolicy,
    Exclusion,
    FLlmForm,
    PlugMemSizeName,
    Precision,
    ProfileName,
    RecipeName,
    RollOutName,
    Schedule,
    TimingPrecision,
)
from tsbench.errors import TsbenchError

PROTOCOL_VERSION = 1
"""Raised by any change that can move a score; part of every cell's hash."""

_NOT_HASHED = frozenset({"device"})
"""Fields that cannot change a result beyond floating-point noise."""

_NOT_HASHED_WHEN_NONE = frozenset({"samples", "train_stride", "f_llm", "train_dataset", "plugmem_from"})
"""Fields younger than stored results; None does what was done before them, so older keys stay valid."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TeacherOptions(_Frozen):
    """How the kNN teacher of TS-Memory retrieves (paper, Section 4.1).

    Attributes:
        exclusion: Which train windows may not be neighbours of a train query. "self": only the identical
            window (the paper); "target": |Δt| < H, futures share no step (default); "window":
            |Δt| < L + H, neither contexts nor futures share a step.
        pool: Candidates found by embedding distance, K0.
        neighbours: Candidates kept after the L1 re-rank, K.
        alignment_tail: Last steps whose mean aligns a neighbour's level, m.
        temperature: Softmax temperature over embedding distances, τ, as a share of the channel's median
            candidate distance. The authors' code uses the absolute value 0.12, which means something
            else for every encoder.
    """

    exclusion: Exclusion = "target"
    pool: int = Field(50, ge=1)
    neighbours: int = Field(20, ge=1)
    alignment_tail: int = Field(16, ge=1)
    temperature: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _pool_holds_neighbours(self) -> Self:
        if self.neighbours > self.pool:
            raise ValueError(f"{self.neighbours} neighbours cannot be kept of a pool of {self.pool}")
        return self


class TsMemoryOptions(_Frozen):
    """Everything a TS-Memory cell varies.

    Attributes:
        teacher: Retrieval settings.
        recipe: "paper": Eq. 20; "released": the loss the authors' code trains.
        ablation: Part of the objective to leave out; "no-retrieval" trains on the task loss alone.
        plugmem: Size of the memory module.
        alpha_policy: Split the fusion weight is chosen on. "oracle" is the test split: leakage, flagged
            in every table.
        alpha_criterion: Score that chooses it.
    """

    teacher: TeacherOptions = TeacherOptions()
    recipe: RecipeName = "paper"
    ablation: AblationName = "none"
    plugmem: PlugMemSizeName = "base"
    alpha_policy: AlphaPolicy = "val"
    alpha_criterion: AlphaCriterion = "crps"


class FLlmOptions(_Frozen):
    """Everything an F-LLM cell varies (arXiv 2602.12756).

    Attributes:
        form: "closed-loop": the frozen language model corrected by its observer, the method. "open-loop":
            without feedback. "lora": without feedback, with low-rank adapters trained in the language model.
            "mlp": closed loop around an MLP in the language model's place. "fpt": all patches through the
            language model and one linear head to the horizon, no roll-out (GPT4TS).
        patch: Steps per patch, P; the lookback is a multiple of it.
        layers: Blocks of the language model that are used, from the first; None uses all.
        observer_window: Past residuals the observer sees, w.
        observer_seed: "lookback": the observer starts from the one-step residuals of the context;
            "zeros": from none, Eq. 9 to the letter.
        context: "sliding": the oldest patch is dropped at each step (AutoTimes); "growing": none is.
        lipschitz: Penalty on the de-embedding: "probe" (Eq. 11), "spectral", or "none".
    """

    form: FLlmForm = "closed-loop"
    patch: int = Field(96, ge=1)
    layers: int | None = Field(None, ge=1)
    observer_window: int = Field(4, ge=1)
    observer_seed: Literal["lookback", "zeros"] = "lookback"
    context: Literal["sliding", "growing"] = "sliding"
    lipschitz: Literal["probe", "spectral", "none"] = "probe"


class Profile(_Frozen):
    """How much of the full protocol is run. Every sub-sampling is printed as coverage.

    A bound in values counts windows x channels x horizon steps; a grid of windows takes the smallest stride
    that stays within it, the same for every method.

    Attributes:
        name: "quick", "standard" or "paper".
        max_test_values: Bound of the test grid.
        max_val_values: Bound of the validation grid that chooses α.
        max_stop_values: Bound of the validation grid that stops training early.
        max_knowledge_rows: Bound of the knowledge base, in windows x channels.
        max_train_pairs: Bound of the training pairs, in windows x channels.
        max_train_values: Bound of the training pairs, in values.
        batch_size: Training pairs per step, at most.
        batch_values: Bound of a step's pairs, in values.
        plugmem: Size of the memory module unless another is asked for.
        learning_rate: Of AdamW. "paper" has the authors' value and no schedule; the others make the most of
            few steps.
        schedule: "constant", or "cosine" to zero over the steps.
        max_steps: Bound of the training steps.
        max_epochs: Bound of the passes over the train windows of supervised baselines.
        eval_every: Steps between validations, at most one epoch.
        patience: Validations without improvement before training stops.
    """

    name: ProfileName
    max_test_values: int
    max_val_values: int
    max_stop_values: int
    max_knowledge_rows: int
    max_train_pairs: int
    max_train_values: int
    batch_size: int
    batch_values: int
    plugmem: PlugMemSizeName
    learning_rate: float
    schedule: Schedule
    max_steps: int
    max_epochs: int
    eval_every: int
    patience: int

    def share(self, parts: int) -> "Profile":
        """What each of several data sets may use that are trained on together: equal parts of the bounds."""
        shared = ("max_stop_values", "max_knowledge_rows", "max_train_pairs", "max_train_values")
        return self.model_copy(update={bound: getattr(self, bound) // parts for bound in shared})


_ALL = 2**62
PROFILES: dict[ProfileName, Profile] = {
    "quick": Profile(
        name="quick",
        max_test_values=100_000,
        max_val_values=50_000,
        max_stop_values=25_000,
        max_knowledge_rows=2_000,
        max_train_pairs=1_000,
        max_train_values=100_000,
        batch_size=32,
        batch_values=3_072,
        plugmem="tiny",
        learning_rate=1e-3,
        schedule="cosine",
        max_steps=200,
        max_epochs=2,
        eval_every=50,
        patience=4,
    ),
    "standard": Profile(
        name="standard",
        max_test_values=1_400_000,
        max_val_values=250_000,
        max_stop_values=60_000,
        max_knowledge_rows=16_000,
        max_train_pairs=8_000,
        max_train_values=2_000_000,
        batch_size=64,
        batch_values=12_288,
        plugmem="tiny",
        learning_rate=1e-3,
        schedule="cosine",
        max_steps=400,
        max_epochs=10,
        eval_every=100,
        patience=4,
    ),
    "paper": Profile(
        name="paper",
        max_test_values=_ALL,
        max_val_values=_ALL,
        max_stop_values=_ALL,
        max_knowledge_rows=_ALL,
        max_train_pairs=_ALL,
        max_train_values=_ALL,
        batch_size=256,
        batch_values=_ALL,
        plugmem="base",
        learning_rate=3e-4,
        schedule="constant",
        max_steps=_ALL,
        max_epochs=_ALL,
        eval_every=_ALL,
        patience=5,
    ),
}


WHOLE_SERIES = 10_000
"""Lookback of cells on collections (M3, M4) unless given: longer than their longest series."""


class Transfer(_Frozen):
    """How F-LLM is trained for a collection it is not trained on.

    Attributes:
        source: Collection whose training parts it is trained on.
        lookback: Context steps L.
        patch: Steps per patch P.
    """

    source: str
    lookback: int
    patch: int


TRANSFERS = {
    "M3-Yearly": Transfer(source="M4-Yearly", lookback=12, patch=6),
    "M3-Quarterly": Transfer(source="M4-Quarterly", lookback=16, patch=8),
    "M3-Monthly": Transfer(source="M4-Monthly", lookback=36, patch=18),
    "M3-Other": Transfer(source="M4-Quarterly", lookback=16, patch=8),
    "M4-Yearly": Transfer(source="M3-Yearly", lookback=12, patch=6),
    "M4-Quarterly": Transfer(source="M3-Quarterly", lookback=16, patch=8),
    "M4-Monthly": Transfer(source="M3-Monthly", lookback=36, patch=18),
    "M4-Weekly": Transfer(source="M3-Monthly", lookback=26, patch=13),
    "M4-Daily": Transfer(source="M3-Monthly", lookback=28, patch=14),
    "M4-Hourly": Transfer(source="M3-Monthly", lookback=48, patch=24),
}
"""F-LLM's settings by the collection it forecasts, unless others are given.

Sources are the paper's; L = 2 H and P = H, as its text has it. Hourly is the exception: hardly a series of
M3-Monthly holds 2 H + H = 144 values, so there L = H = 48 and two steps of 24, as in AutoTimes' scripts.
"""


class CellSpec(_Frozen):
    """One cell of a results table.

    Attributes:
        method: Registered method, such as "origin" or "ts-memory".
        backbone: Registered backbone, such as "fracast".
        dataset: Name in the catalogue, "demo", or "csv-<stem>" for a user's file.
        horizon: Forecast steps H; of a collection (M3, M4) the official ones.
        lookback: Context steps L; of a collection at most so many, the last ones of each training part.
        seed: Seed of everything random in the cell.
        profile: How much of the protocol is run.
        rollout: How a backbone extends past its own block.
        checkpoint: Hub id or directory of the backbone's weights; None for the registered ones.
        test_stride: Overrides the profile's stride between test windows, or between series of a collection.
        train_stride: Overrides the profile's stride between train windows that are trained on. With one
            stride for all horizons, the longest one's pass over the train windows serves the shorter ones.
        drop_last: Batch size of a loader that drops its last test batch, to reproduce such tables.
        options: TS-Memory's settings; None for other methods.
        f_llm: F-LLM's settings; None for other methods.
        train_dataset: What is trained on instead of `dataset`. Of TS-Memory and LoRA a long data set, or
            several in alphabetical order with "+" between them; of F-LLM the collection it forecasts another
            from. None trains on `dataset`.
        plugmem_from: Backbone, with its registered weights, for which the memory module of TS-Memory is
            trained that `backbone` is fused with; None takes `backbone` itself.
        precision: Of the forward passes of what is trained, and of F-LLM's language model; a frozen
            forecaster always runs in fp32.
        samples: Paths drawn per window and channel for the CRPS by samples; None draws none.
        device: Where it runs, "cpu" or "cuda"; not part of the hash.
    """

    method: str
    backbone: str
    dataset: str
    horizon: int = Field(ge=1)
    lookback: int = Field(512, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
    profile: ProfileName = "standard"
    rollout: RollOutName = "median"
    checkpoint: str | None = None
    test_stride: int | None = Field(None, ge=1)
    train_stride: int | None = Field(None, ge=1)
    drop_last: int | None = Field(None, ge=1)
    options: TsMemoryOptions | None = None
    f_llm: FLlmOptions | None = None
    train_dataset: str | None = None
    plugmem_from: str | None = None
    precision: Precision = "fp32"
    samples: int | None = Field(None, ge=2)
    device: str = "cpu"

    @property
    def train_datasets(self) -> tuple[str, ...]:
        """The data sets of `train_dataset`; empty for None."""
        return tuple(self.train_dataset.split("+")) if self.train_dataset else ()

    def sources(self) -> "tuple[CellSpec, ...]":
        """What a cell on a long data set takes its training from, where that is not itself.

        Returns:
            For each data set trained on the cell of that data set and of the backbone trained for, itself not
            transferred, so that what was learned for it is used again; empty where nothing is transferred.
        """
        if not (self.train_dataset or self.plugmem_from):
            return ()
        own = dict.fromkeys(("train_dataset", "plugmem_from", "test_stride", "drop_last", "samples"))
        donor = {"backbone": self.plugmem_from, "checkpoint": None} if self.plugmem_from else {}
        names = self.train_datasets or (self.dataset,)
        return tuple(self.model_copy(update={**own, **donor, "dataset": name}) for name in names)

    def content_hash(self, *also: str) -> str:
        """Hex digest of every field that can change a result, and of `also` (such as the data's checksum)."""
        absent = {name for name in _NOT_HASHED_WHEN_NONE if getattr(self, name) is None}
        fields = self.model_dump(mode="json", exclude={*_NOT_HASHED, *absent})
        return digest({"protocol": PROTOCOL_VERSION, "spec": fields, "also": list(also)})


class LatencySpec(_Frozen):
    """One setting in which methods are timed side by side.

    Attributes:
        methods: Registered methods, each on the same queries.
        backbone: Registered backbone below all of them.
        dataset: Name in the catalogue, "demo", or "csv-<stem>" for a user's file; its last channel is used.
        horizon: Forecast steps H.
        lookback: Context steps L.
        batch: Queries (one channel of one window each) per call; None times whole evaluations of the test
            windows, in the evaluator's own batches.
        repeats: Timed rounds; in each, every method is called once.
        warm_up: Rounds before them that are not recorded.
        test_stride: Steps between the test windows of an evaluation.
        plugmem: Size of TS-Memory's network, which LoRA's adapters match.
        rollout: How the backbone extends past its own block.
        checkpoint: Hub id or directory of its weights; None for the registered ones.
        random_init: Random weights of the true shape instead.
        precision: Number format of the networks.
        compiled: Whether they run through `torch.compile`.
        threads: CPU threads of PyTorch and faiss.
        device: "cpu", "cuda" or "cuda:N".
    """

    methods: tuple[str, ...] = Field(min_length=1)
    backbone: str
    dataset: str
    horizon: int = Field(ge=1)
    lookback: int = Field(512, ge=1)
    batch: int | None = Field(1, ge=1)
    repeats: int = Field(50, ge=1)
    warm_up: int = Field(5, ge=0)
    test_stride: int = Field(1, ge=1)
    plugmem: PlugMemSizeName = "base"
    rollout: RollOutName = "median"
    checkpoint: str | None = None
    random_init: bool = False
    precision: TimingPrecision = "fp32"
    compiled: bool = False
    threads: int = Field(ge=1)
    device: str = "cpu"


def digest(content: object) -> str:
    """SHA-256 hex digest of a JSON-serialisable value, independent of key order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def profile(name: str) -> Profile:
    """Look up a profile by name.

    Raises:
        TsbenchError: There is none of that name.
    """
    for known, settings in PROFILES.items():
        if known == name:
            return settings
    raise TsbenchError(f"unknown profile '{name}'; choose one of {', '.join(PROFILES)}")
