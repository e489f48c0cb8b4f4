"""From what a user asks for to the list of cells."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from tsbench.bench.mistakes import Mistakes
from tsbench.config import (
    TRANSFERS,
    WHOLE_SERIES,
    CellSpec,
    FLlmOptions,
    Profile,
    TeacherOptions,
    TsMemoryOptions,
)
from tsbench.data.catalog import CollectionEntry, find_collection, resolve
from tsbench.data.catalog import find as find_dataset
from tsbench.errors import TsbenchError
from tsbench.registry import Kind, find

Options = TsMemoryOptions | FLlmOptions
Settings = Mapping[str, Sequence[Options]]
"""Settings by method; methods that take none are not there."""

_HORIZON = 96
_BACKBONE = "flame-small"
_UNTRAINED = ("origin", "raft", "ts-rag")
_OWN_BACKBONES = {"f-llm": "smollm2", "supervised": "dlinear"}


def cells(
    *,
    method: str,
    backbone: str | None,
    datasets: Iterable[str],
    horizons: Iterable[int] = (),
    seeds: Iterable[int],
    variants: Sequence[Options | None],
    lookback: int | None = None,
    train_dataset: str | None = None,
    fine_tune: bool = False,
    own_data: Collection[str] = (),
    **common: Any,
) -> list[CellSpec]:
    """Every combination, data set by data set, the longest horizon first so that shorter ones reuse its pass.

    Where nothing is trained (Origin, RAFT, TS-RAG), seed and precision change no forecast: there is one cell
    for all of them, with seed 0, which is also that of its sampled paths.

    Args:
        method: Name or alias of a method.
        backbone: Name or alias of a backbone; None takes smollm2 for F-LLM, dlinear for supervised and
            flame-small for others.
        datasets: Names of data sets or groups of the catalogue.
        horizons: Forecast steps; none takes 96, and the official ones of a collection.
        seeds: Seeds.
        variants: Settings of TS-Memory or F-LLM; (None,) for other methods.
        lookback: Context steps; None takes the backbone's own, 672 for F-LLM, and 512 for others. On a
            collection it takes what `TRANSFERS` says for F-LLM, and whole series for others.
        train_dataset: Collection that F-LLM is trained on; None takes that of `TRANSFERS`.
        fine_tune: Train FLAME on the data set. Zero-shot, FLAME is its backbone as it is: an Origin cell.
        own_data: Names of data sets that are not in the catalogue.
        **common: Further fields that all cells share.

    Raises:
        TsbenchError: Names are unknown or values out of range; one line per mistake.
    """
    mistakes = Mistakes()
    names: dict[Kind, str] = {
        "method": method,
        "backbone": backbone or _OWN_BACKBONES.get(method, _BACKBONE),
    }
    for kind, typed in names.items():
        with mistakes.noting():
            entry = find(kind, typed)
            names[kind], lookback = entry.name, lookback or entry.lookback
    members = []
    for name in datasets:
        with mistakes.noting():
            members += [entry.name for entry in resolve([name])]
    with mistakes.noting():
        names["method"] = _trained_method(names, fine_tune)
    if names["method"] == "supervised":
        common = common | {"precision": "fp32"}
    if names["method"] in _UNTRAINED:
        seeds, common = (0,), common | {"precision": "fp32", "train_stride": None}
    found: dict[CellSpec, None] = {}
    asked = sorted(horizons, reverse=True)
    for dataset in (*members, *own_data):
        collection = find_collection(dataset)
        steps: list[int] = []
        with mistakes.noting():
            steps = _official(collection, asked) if collection else asked or [_HORIZON]
        for horizon, seed, variant in product(steps, seeds, variants):
            with mistakes.noting():
                settings = _data_settings(variant, collection, lookback, train_dataset)
                fields = common | {"dataset": dataset, "horizon": horizon, "seed": seed} | settings
                found[CellSpec.model_validate(names | fields)] = None
    mistakes.raise_any()
    return list(found)


def _official(collection: CollectionEntry, horizons: list[int]) -> list[int]:
    """The one horizon of a collection, given or not."""
    for horizon in horizons:
        if horizon != collection.horizon:
            official = f"{collection.name} is scored on {collection.horizon} steps"
            raise TsbenchError(f"{official}, not {horizon}; leave out --horizon")
    return [collection.horizon]


def _data_settings(
    variant: Options | None,
    collection: CollectionEntry | None,
    lookback: int | None,
    train_dataset: str | None,
) -> dict[str, Any]:
    """Fields of a cell whose defaults depend on what its data are."""
    f_llm = isinstance(variant, FLlmOptions)
    if train_dataset and not (f_llm and collection):
        raise TsbenchError("--train-dataset is for --method f-llm on M3 and M4; leave it out")
    if not isinstance(variant, FLlmOptions):
        return {"lookback": lookback or (WHOLE_SERIES if collection else 512), "options": variant}
    if collection is None:
        return {"lookback": lookback or 672, "f_llm": variant}
    transfer = TRANSFERS[collection.name]
    source = find_dataset(train_dataset or transfer.source)
    if not isinstance(source, CollectionEntry):
        raise TsbenchError(f"--train-dataset {source.name} is no collection; use {transfer.source}")
    patch = {} if "patch" in variant.model_fields_set else {"patch": transfer.patch}
    return {
        "lookback": lookback or transfer.lookback,
        "train_dataset": source.name,
        "f_llm": variant.model_copy(update=patch),
    }


def _trained_method(names: dict[Kind, str], fine_tune: bool) -> str:
    """FLAME zero-shot is Origin on its backbone."""
    method, backbone = names["method"], names["backbone"]
    if fine_tune and method != "flame":
        raise TsbenchError(f"--fine-tune belongs to --method flame, not to {method}; leave it out")
    if method == "flame" and not backbone.startswith("flame-"):
        raise TsbenchError(
            f"method 'flame' is a model of its own, not an adapter of {backbone}; use --backbone flame-small"
        )
    return "origin" if method == "flame" and not fine_tune else method


def default_settings(profile: Profile) -> Settings:
    """Settings unless others are given."""
    return {"ts-memory": [TsMemoryOptions(plugmem=profile.plugmem)], "f-llm": [FLlmOptions()]}


def variants(
    *, exclusions: Iterable[str], ablations: Iterable[str], **shared: Any
) -> tuple[TsMemoryOptions, ...]:
    """TS-Memory's settings for every combination of exclusion rule and ablation.

    The no-retrieval control has no teacher and no recipe, so neither multiplies it.

    Args:
        exclusions: Values of `TeacherOptions.exclusion`.
        ablations: Values of `TsMemoryOptions.ablation`.
        **shared: Further fields of `TsMemoryOptions`.

    Raises:
        TsbenchError: A value is out of range.
    """
    mistakes = Mistakes()
    found: dict[TsMemoryOptions, None] = {}
    for ablation, exclusion in product(ablations, exclusions):
        fields: dict[str, Any] = {**shared, "ablation": ablation}
        with mistakes.noting():
            if ablation == "no-retrieval":
                fields.pop("recipe", None)
            else:
                fields["teacher"] = TeacherOptions.model_validate({"exclusion": exclusion})
            found[TsMemoryOptions.model_validate(fields)] = None
    mistakes.raise_any()
    return tuple(found)
