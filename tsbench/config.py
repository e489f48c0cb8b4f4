"""What a benchmark cell is: one method on one backbone, data set and horizon, under one profile."""

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsbench.errors import TsbenchError

PROTOCOL_VERSION = 1
"""Raised by any change that can move a score; part of every cell's hash."""

ProfileName = Literal["quick", "standard", "paper"]
RollOutName = Literal["median", "expand"]
Exclusion = Literal["self", "target", "window"]
AlphaPolicy = Literal["val", "oracle"]
AlphaCriterion = Literal["crps", "mae", "mse"]
Precision = Literal["fp32", "bf16"]
Schedule = Literal["constant", "cosine"]
RecipeName = Literal["paper", "released"]
AblationName = Literal[
    "none",
    "no-distillation",
    "no-gate",
    "no-confidence",
    "no-regularisation",
    "no-delta-align",
    "no-retrieval",
]
PlugMemSizeName = Literal["tiny", "small", "base", "large"]

_NOT_HASHED = frozenset({"device"})
"""Fields that cannot change a result beyond floating-point noise."""

_NOT_HASHED_WHEN_NONE = frozenset({"samples", "train_stride"})
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
    eval_every: int
    patience: int


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
        eval_every=_ALL,
        patience=5,
    ),
}


class CellSpec(_Frozen):
    """One cell of a results table.

    Attributes:
        method: Registered method, such as "origin" or "ts-memory".
        backbone: Registered backbone, such as "fracast".
        dataset: Name in the catalogue, "demo", or "csv-<stem>" for a user's file.
        horizon: Forecast steps H.
        lookback: Context steps L.
        seed: Seed of everything random in the cell.
        profile: How much of the protocol is run.
        rollout: How a backbone extends past its own block.
        checkpoint: Hub id or directory of the backbone's weights; None for the registered ones.
        test_stride: Overrides the profile's stride between test windows.
        train_stride: Overrides the profile's stride between train windows that are trained on. With one
            stride for all horizons, the longest one's pass over the train windows serves the shorter ones.
        drop_last: Batch size of a loader that drops its last test batch, to reproduce such tables.
        options: TS-Memory's settings; None for other methods.
        precision: Of the memory module's forward passes; the frozen backbone always runs in fp32.
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
    precision: Precision = "fp32"
    samples: int | None = Field(None, ge=2)
    device: str = "cpu"

    def content_hash(self, *also: str) -> str:
        """Hex digest of every field that can change a result, and of `also` (such as the data's checksum)."""
        absent = {name for name in _NOT_HASHED_WHEN_NONE if getattr(self, name) is None}
        fields = self.model_dump(mode="json", exclude={*_NOT_HASHED, *absent})
        return digest({"protocol": PROTOCOL_VERSION, "spec": fields, "also": list(also)})


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
