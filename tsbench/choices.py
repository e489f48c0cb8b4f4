"""The words a user can choose among; apart from `config`, so that `--help` needs no pydantic."""

from typing import Literal

ProfileName = Literal["quick", "standard", "paper"]
RollOutName = Literal["median", "expand"]
Exclusion = Literal["self", "target", "window"]
AlphaPolicy = Literal["val", "oracle"]
AlphaCriterion = Literal["crps", "mae", "mse"]
Precision = Literal["fp32", "bf16"]
TimingPrecision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine", "late-halving"]
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
FLlmForm = Literal["closed-loop", "open-loop", "lora", "mlp", "fpt"]
