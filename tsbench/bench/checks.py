"""Finding the mistakes in cells before the first second of work."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tsbench.bench.mistakes import Mistakes
from tsbench.bench.runner import NAIVE_BACKBONES, Bench, cache_budget
from tsbench.config import CellSpec
from tsbench.data.catalog import find as find_dataset
from tsbench.data.catalog import find_collection
from tsbench.data.local import is_present
from tsbench.data.paths import default_data_dir
from tsbench.errors import TsbenchError
from tsbench.registry import ONLINE_RETRIEVAL, PEFT, find, require_installed

_NEED_ENCODER = ("ts-memory", "ts-rag")


def check(bench: Bench, specs: Iterable[CellSpec]) -> None:
    """Find every mistake that can be found before the first second of work.

    Raises:
        TsbenchError: One line per distinct mistake.
    """
    mistakes = Mistakes()
    if bench.writes:
        with mistakes.noting():
            bench.store.check_writable()
    with mistakes.noting():
        cache_budget()
    for spec in specs:
        with mistakes.noting():
            _check_cell(bench, spec)
    mistakes.raise_any()


def obstacles(bench: Bench, specs: Iterable[CellSpec]) -> dict[CellSpec, str]:
    """Why cells cannot run on this machine; those that can are left out.

    The first of: weights that are neither here nor to be had from the hub, data sets that cannot be had, both
    also of what a transferred cell is trained as, and what `check` would say. Data sets that are not here are
    fetched. Backbones are loaded, so that weights which cannot be used are found once and not by each cell;
    of language models from the hub, which take gigabytes, it is only seen whether they can be had.

    Raises:
        TsbenchError: No cell could run: the results cannot be written, or the device is not there.
    """
    cells = list(specs)
    check(bench, ())
    for spec in cells:
        _require_device(spec)
    known: dict[object, str] = {}

    def said(subject: object, look: Callable[[Bench, CellSpec], object], spec: CellSpec) -> str:
        """The error of looking once at what several cells share; empty for none."""
        if subject not in known:
            try:
                look(bench, spec)
                known[subject] = ""
            except TsbenchError as error:
                known[subject] = str(error)
        return known[subject]

    found = {}
    for spec in cells:
        reasons = [
            said((part.backbone, part.checkpoint), _look_for_weights, part)
            or said(part.dataset, _load_data, part)
            for part in (spec, *spec.sources())
        ]
        reason = next(filter(None, reasons), "") or said(spec, _try_cell, spec)
        if reason:
            found[spec] = reason
    return found


def is_here(spec: CellSpec, mirror: Path | None) -> bool:
    """Whether packages, weights and data of a cell are on this machine; nothing is fetched or loaded.

    Args:
        spec: Cell on data of the catalogue.
        mirror: Local mirror of the public data, if there is one.
    """
    parts = (spec, *spec.sources())
    return lacking_here(spec) is None and all(
        is_present(find_dataset(part.dataset), mirror, default_data_dir()) for part in parts
    )


def lacking_here(spec: CellSpec) -> str | None:
    """The package or the weights that this machine lacks to run a cell, data apart; None for nothing."""
    from tsbench.backbones.hub import HUB_IDS
    from tsbench.backbones.hub import is_here as weights_are_here

    for part in (spec, *spec.sources()):
        try:
            _require_packages(part)
        except TsbenchError as error:
            return str(error)
        weights = part.checkpoint or HUB_IDS.get(part.backbone)
        if weights and not weights_are_here(weights):
            return f"the weights of {part.backbone} are not on this machine"
    return None


def _look_for_weights(bench: Bench, spec: CellSpec) -> None:
    from tsbench.backbones.hub import HUB_IDS, require_source

    require_installed("backbone", find("backbone", spec.backbone))
    source = spec.checkpoint or HUB_IDS.get(spec.backbone)
    if source:
        require_source(spec.backbone, source)


def _load_data(bench: Bench, spec: CellSpec) -> None:
    if find_collection(spec.dataset):
        bench.collection(spec.dataset)
    else:
        bench.dataset(spec.dataset)


def _try_cell(bench: Bench, spec: CellSpec) -> None:
    from tsbench.backbones.hub import HUB_IDS

    _check_cell(bench, spec)
    if find("backbone", spec.backbone).role != "language-model" or spec.backbone not in HUB_IDS:
        bench.backbone(spec)


def _require_packages(spec: CellSpec) -> None:
    require_installed("method", find("method", spec.method))
    require_installed("backbone", find("backbone", spec.backbone))
    if spec.f_llm is not None and spec.f_llm.form == "lora" and not PEFT.installed:
        raise TsbenchError(f"--form lora needs the package {PEFT.package}; {PEFT.install_command}")


def _require_device(spec: CellSpec) -> None:
    if spec.device != "cpu":
        from tsbench.backbones.base import resolve_device

        resolve_device(spec.device)


def _check_cell(bench: Bench, spec: CellSpec) -> None:
    _require_packages(spec)
    method, backbone = find("method", spec.method), find("backbone", spec.backbone)
    for only, role, what, example in (
        ("f-llm", "language-model", "a language model", "smollm2"),
        ("supervised", "architecture", "an untrained architecture", "dlinear"),
    ):
        if (backbone.role == role) != (spec.method == only):
            raise TsbenchError(
                f"backbone '{backbone.name}' is {what} and forecasts only with --method {only}"
                if backbone.role == role
                else f"method '{only}' needs {what}, not {backbone.name}; use --backbone {example}"
            )
    if spec.method in _NEED_ENCODER and spec.backbone in NAIVE_BACKBONES and not spec.plugmem_from:
        raise TsbenchError(
            f"method '{method.name}' needs a backbone with an encoder; {spec.backbone} has none; "
            "choose flame-small or chronos-bolt"
        )
    _require_device(spec)
    if find_collection(spec.dataset):
        if backbone.role == "multivariate":
            raise TsbenchError(
                f"backbone '{backbone.name}' forecasts channels together, but a series of {spec.dataset} has "
                "one; use --backbone chronos-2"
            )
        _check_collection_cell(bench, spec)
        return
    if backbone.role == "statistical":
        raise TsbenchError(
            f"backbone '{backbone.name}' is fitted to single series; use it on M3 or M4, such as M4-Hourly"
        )
    from tsbench.data.splits import split_borders
    from tsbench.data.windows import window_grid

    if spec.options is not None:
        from tsbench.methods.ts_memory.losses import RECIPES, ablate

        ablate(RECIPES[spec.options.recipe], spec.options.ablation)
    if spec.method == "f-llm":
        from tsbench.methods.f_llm import plant_config

        plant_config(spec)
    if spec.method == "ts-memory" and spec.train_stride:
        from tsbench.methods.ts_memory.teaching import train_windows

        task = bench.task(spec)
        for trained in [source.task for source in task.sources] or [task]:  # with their shares of a profile
            train_windows(trained)
    dataset = bench.dataset(spec.dataset)
    borders = split_borders(dataset.split, len(dataset.values))
    window_grid(borders, "test", spec.lookback, spec.horizon, spec.test_stride or 1, spec.drop_last)
    if method.name != "origin":
        window_grid(borders, "val", spec.lookback, spec.horizon)
        if not spec.train_datasets:
            window_grid(borders, "train", spec.lookback, spec.horizon)
    _check_sources(bench, spec)
    if spec.method == "lora":
        from tsbench.methods.lora import adaptable_family

        adaptable_family(bench.backbone(spec))
    if spec.samples is not None:
        _check_samples(bench, spec)


def _check_sources(bench: Bench, spec: CellSpec) -> None:
    """What a transferred cell is trained as must be able to run, and forecast what it does."""
    for source in spec.sources():
        try:
            _check_cell(
                bench, source.model_copy(update={"train_stride": None})
            )  # that of its share was above
        except TsbenchError as error:
            if source.dataset == spec.dataset:
                raise
            raise TsbenchError(f"{source.dataset}: {error}") from error
    if spec.plugmem_from:
        from tsbench.methods.ts_memory.method import require_equal_levels

        require_equal_levels(bench.backbone(spec.sources()[0]), bench.backbone(spec))


def _check_samples(bench: Bench, spec: CellSpec) -> None:
    """Only the backbone itself can tell whether it draws paths, so it is loaded."""
    from tsbench.backbones.base import path_sampler

    if spec.method in ("f-llm", "supervised"):
        raise TsbenchError(f"method '{spec.method}' forecasts points and draws no paths; leave out --samples")
    path_sampler(bench.backbone(spec), spec.horizon)
    if spec.method in ("ts-memory", *ONLINE_RETRIEVAL):
        raise TsbenchError(
            f"method '{spec.method}' fuses quantiles and draws no paths; "
            "leave out --samples or use --method origin"
        )


def _check_collection_cell(bench: Bench, spec: CellSpec) -> None:
    if spec.train_dataset is not None:
        from tsbench.methods.f_llm import plant_config

        plant_config(spec)
        bench.collection(spec.train_dataset)
    elif spec.method != "origin":
        raise TsbenchError(
            f"method '{spec.method}' learns from the windows of a long data set; on {spec.dataset} use "
            "--method origin"
        )
    for option in ("samples", "drop_last", "train_stride"):
        if getattr(spec, option) is not None:
            name = option.replace("_", "-")
            raise TsbenchError(f"--{name} is for long data sets, not for {spec.dataset}; leave it out")
    bench.collection(spec.dataset)
