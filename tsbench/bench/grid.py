"""From what a user asks for to the list of cells."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from tsbench.bench.mistakes import Mistakes
from tsbench.bench.provenance import preferred_precision
from tsbench.choices import Precision
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
from tsbench.registry import NOT_TRAINED, Kind, find

Options = TsMemoryOptions | FLlmOptions
Settings = Mapping[str, Sequence[Options]]
"""Settings by method; methods that take none are not there."""

_HORIZON = 96
_BACKBONE = "flame-small"
_TRANSFERABLE = ("ts-memory", "lora")
_NOT_TRANSFERRED = (
    "--train-dataset is for --method f-llm on M3 and M4, and for ts-memory and lora on long data sets; "
    "leave it out"
)
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
    train_datasets: Sequence[str] = (),
    plugmem_from: str | None = None,
    fine_tune: bool = False,
    precision: Precision | None = None,
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
        train_datasets: Names or groups of the long data sets that TS-Memory or LoRA is trained on instead, or
            the collection that F-LLM is trained on; none takes the data set itself, or that of `TRANSFERS`.
        plugmem_from: Name or alias of the backbone that TS-Memory's memory module is trained for; None takes
            `backbone`.
        fine_tune: Train FLAME on the data set. Zero-shot, FLAME is its backbone as it is: an Origin cell.
        precision: Number format of what is trained and of language models; None takes fp32 for supervised
            networks, whose papers train in it, and what is fastest on the device for others.
        own_data: Names of data sets that are not in the catalogue.
        **common: Further fields that all cells share.

    Raises:
        TsbenchError: Names are unknown or values out of range; one line per mistake.
    """
    mistakes = Mistakes()
    names: dict[Kind, str] = {
        "method": method,
        "backbone": backbone or default_backbone(method),
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
    with mistakes.noting():
        common = common | {"plugmem_from": _donor(names, plugmem_from, common.get("checkpoint"))}
    usual = "fp32" if names["method"] == "supervised" else preferred_precision(common.get("device", "cpu"))
    common = common | {"precision": precision or usual}
    if names["method"] in NOT_TRAINED:
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
                if collection:
                    settings = _collection_settings(variant, collection, lookback, train_datasets)
                else:
                    settings = _window_settings(variant, lookback)
                    settings["train_dataset"] = _trained_on(names["method"], dataset, train_datasets)
                fields = common | {"dataset": dataset, "horizon": horizon, "seed": seed} | settings
                found[CellSpec.model_validate(names | fields)] = None
    mistakes.raise_any()
    return list(found)


def default_backbone(method: str) -> str:
    """Backbone of a method unless another is given."""
    return _OWN_BACKBONES.get(method, _BACKBONE)


def _official(collection: CollectionEntry, horizons: list[int]) -> list[int]:
    """The one horizon of a collection, given or not."""
    for horizon in horizons:
        if horizon != collection.horizon:
            official = f"{collection.name} is scored on {collection.horizon} steps"
            raise TsbenchError(f"{official}, not {horizon}; leave out --horizon")
    return [collection.horizon]


def _window_settings(variant: Options | None, lookback: int | None) -> dict[str, Any]:
    """Method's settings and context steps of a cell on a long data set."""
    if isinstance(variant, FLlmOptions):
        return {"lookback": lookback or 672, "f_llm": variant}
    return {"lookback": lookback or 512, "options": variant}


def _collection_settings(
    variant: Options | None,
    collection: CollectionEntry,
    lookback: int | None,
    train_datasets: Sequence[str],
) -> dict[str, Any]:
    """Method's settings, context steps and what is trained on of a cell on a collection."""
    if not isinstance(variant, FLlmOptions):
        if train_datasets:
            raise TsbenchError(_NOT_TRANSFERRED)
        return {"lookback": lookback or WHOLE_SERIES, "options": variant}
    if len(train_datasets) > 1:
        raise TsbenchError("--train-dataset is one collection with --method f-llm; leave out the others")
    transfer = TRANSFERS[collection.name]
    source = find_dataset(*train_datasets or (transfer.source,))
    if not isinstance(source, CollectionEntry):
        raise TsbenchError(f"--train-dataset {source.name} is no collection; use {transfer.source}")
    patch = {} if "patch" in variant.model_fields_set else {"patch": transfer.patch}
    return {
        "lookback": lookback or transfer.lookback,
        "train_dataset": source.name,
        "f_llm": variant.model_copy(update=patch),
    }


def _trained_on(method: str, dataset: str, train_datasets: Sequence[str]) -> str | None:
    """What a cell on a long data set is trained on, as in `CellSpec`; None where that is the set itself."""
    if train_datasets and method not in _TRANSFERABLE:
        raise TsbenchError(_NOT_TRANSFERRED)
    entries = resolve(train_datasets)
    for entry in entries:
        if isinstance(entry, CollectionEntry):
            raise TsbenchError(
                f"--train-dataset {entry.name} is a collection of short series, which have no windows to "
                f"train {method} on; use long data sets such as ETTh1"
            )
    joined = "+".join(sorted(entry.name for entry in entries))
    return joined if joined not in ("", dataset) else None


def _donor(names: dict[Kind, str], plugmem_from: str | None, checkpoint: str | None) -> str | None:
    """The backbone a memory module is taken from; None where that is the cell's own, weights included."""
    if plugmem_from is None:
        return None
    if names["method"] != "ts-memory":
        raise TsbenchError(
            f"--plugmem-from belongs to --method ts-memory, not to {names['method']}; leave it out"
        )
    donor = find("backbone", plugmem_from).name
    return donor if donor != names["backbone"] or checkpoint else None


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
