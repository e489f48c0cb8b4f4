"""Suites: the cells of a published table, named in a TOML file."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tsbench.data.catalog import resolve
from tsbench.data.plugins import plugin_points
from tsbench.errors import TsbenchError
from tsbench.registry import unknown_name


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Canonical names of data sets, groups spelled out; those of other packages as they are."""
    plugins = plugin_points()
    parts = ([name] if name in plugins else [entry.name for entry in resolve([name])] for name in names)
    return tuple(dict.fromkeys(name for part in parts for name in part))


Datasets = Annotated[tuple[str, ...], AfterValidator(_known)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Printed(_Model):
    """What the paper calls a row.

    Attributes:
        method: None where it is the row's own name.
        backbone: None where it is the row's own name; "" where the paper prints none.
        variant: What differs from the method as proposed, as in `tsbench/report/reference/results.csv`.
    """

    method: str | None = None
    backbone: str | None = None
    variant: str = ""


class Rows(_Model):
    """Rows of a table that differ in their backbone only.

    Attributes:
        method: Registered method.
        backbones: Registered backbones, one row for each.
        datasets: Data sets or groups; empty takes the suite's.
        horizons: Forecast steps; empty takes the suite's.
        lookback: Context steps; None takes the suite's.
        fine_tune: Train FLAME on the data set.
        options: Fields of `TsMemoryOptions` or `FLlmOptions` that the row fixes.
        plugmem_from: Backbone whose memory module is used.
        train_datasets: Data sets that are trained on in place of the cell's own.
        printed: What the paper calls the row.
    """

    method: str
    backbones: tuple[str, ...]
    datasets: Datasets = ()
    horizons: tuple[int, ...] = ()
    lookback: int | None = None
    fine_tune: bool = False
    options: dict[str, Any] = {}
    plugmem_from: str | None = None
    train_datasets: Datasets = ()
    printed: Printed = Printed()


class Absent(_Model):
    """Rows of the published table that tsbench has no cells for; names as printed.

    Attributes:
        methods: Methods, one row for each.
        backbone: Empty where the paper prints none.
        variant: As in `Printed`.
        datasets: Data sets or groups; empty takes the suite's.
        reason: Why.
    """

    methods: tuple[str, ...]
    backbone: str = ""
    variant: str = ""
    datasets: Datasets = ()
    reason: str


class Suite(_Model):
    """A table: the rows, on all its data sets and horizons.

    Attributes:
        name: The file's name without its ending.
        title: One line for `tsbench list suites`.
        datasets: Data sets or groups of every row that names none.
        horizons: Forecast steps of every row that names none; empty for M3 and M4, which have official ones.
        lookback: Context steps of every row that names none; None takes each method's own.
        rows: What tsbench can compute.
        absent: What it cannot, so that nothing is missing silently.
        printed_datasets: What the paper calls a data set, where the catalogue calls it otherwise.
    """

    name: str
    title: str
    datasets: Datasets
    horizons: tuple[int, ...] = ()
    lookback: int | None = None
    rows: tuple[Rows, ...]
    absent: tuple[Absent, ...] = ()
    printed_datasets: dict[str, str] = {}

    def every_dataset(self) -> tuple[str, ...]:
        """The data sets that any row is about, in the order of the suite."""
        named = [row.datasets for row in self.rows] + [row.datasets for row in self.absent]
        return tuple(dict.fromkeys([*self.datasets, *chain.from_iterable(named)]))


def shipped_suites() -> dict[str, Path]:
    """The suites that come with tsbench, by name: in the package, or in benchmarks/ of a checkout."""
    package = Path(str(files("tsbench")))
    packaged = package / "suites"
    folder = packaged if packaged.is_dir() else package.parent / "benchmarks"

    def paper_and_number(path: Path) -> tuple[str, int]:
        paper, _, number = path.stem.rpartition("-table")
        return paper, int(number)

    return {path.stem: path for path in sorted(folder.glob("*-table*.toml"), key=paper_and_number)}


def load_suite(which: str) -> Suite:
    """Read a suite.

    Args:
        which: Name of one that comes with tsbench ("ts-memory-table3", or "ts-memory/3" for short), or path
            of a TOML file.

    Raises:
        TsbenchError: There is none, or it is not as `Suite` describes; one line per mistake.
    """
    path = _find(which, Path())
    raw = _read(path)
    other = raw.pop("cells_of", None)
    if other is not None:
        source = _find(str(other), path.parent)
        raw = _read(source) | raw
        if "cells_of" in raw:
            raise TsbenchError(
                f"{path}: cells_of '{other}' takes its own from '{raw['cells_of']}'; name that"
            )
    try:
        return Suite.model_validate({"name": path.stem} | raw)
    except ValidationError as error:
        lines = [f"{path}: {_mistake(each)}" for each in error.errors()]
        raise TsbenchError("\n".join(lines)) from error
    except TsbenchError as error:
        raise TsbenchError(f"{path}: {error}") from error


def restricted(suite: Suite, only: Iterable[str]) -> Suite:
    """The part of a suite that is about some data sets.

    Args:
        suite: The whole.
        only: Data sets or groups; none keeps all.

    Raises:
        TsbenchError: One is unknown, or no part of the suite.
    """
    wanted = _known(tuple(only))
    if not wanted:
        return suite
    every = suite.every_dataset()
    for name in wanted:
        if name not in every:
            raise TsbenchError(f"suite {suite.name} has no cells on {name}; choose from {', '.join(every)}")

    def keep(part: Rows | Absent) -> dict[str, tuple[str, ...]]:
        return {"datasets": tuple(name for name in part.datasets or suite.datasets if name in wanted)}

    rows = [row.model_copy(update=keep(row)) for row in suite.rows]
    absent = [row.model_copy(update=keep(row)) for row in suite.absent]
    return suite.model_copy(
        update={
            "datasets": tuple(name for name in suite.datasets if name in wanted),
            "rows": tuple(row for row in rows if row.datasets),
            "absent": tuple(row for row in absent if row.datasets),
        }
    )


def on_backbones(suite: Suite, backbones: Sequence[str]) -> Suite:
    """The same table on other backbones, which no published figure compares with.

    Supervised rows keep their architecture. Of several backbones the first takes the place of the first one
    that a memory module is carried from, the second that of the second; a module goes to all the others. What
    is carried from further ones, or would be from a single one, is absent.

    Args:
        suite: The table.
        backbones: Registered names, one or more, each once.
    """
    carried = [row.plugmem_from for row in suite.rows if row.plugmem_from is not None]
    donors = dict(zip(dict.fromkeys(carried), backbones if len(backbones) > 1 else (), strict=False))
    rows = []
    absent = list(suite.absent)
    for row in suite.rows:
        if row.plugmem_from is not None and row.plugmem_from not in donors:
            reason = f"a memory module carried between backbones; --backbone {' '.join(backbones)} leaves "
            absent += [
                Absent(
                    methods=(row.method,),
                    backbone=backbone,
                    variant=row.printed.variant,
                    datasets=row.datasets,
                    reason=reason + ("one" if len(backbones) == 1 else "none for it"),
                )
                for backbone in backbones
            ]
        elif row.method == "supervised":
            rows.append(row)
        else:
            rows.append(_moved(row, backbones, donors))
    return suite.model_copy(update={"rows": tuple(rows), "absent": tuple(absent)})


def _moved(row: Rows, backbones: Sequence[str], donors: Mapping[str, str]) -> Rows:
    """A row on other backbones: of donors alone on theirs, about one donor's module on all but that donor."""
    taken = tuple(backbones)
    if donors and set(row.backbones) <= donors.keys():
        taken = tuple(donors[name] for name in row.backbones)
    variant = row.printed.variant.split(";")
    donor = row.plugmem_from or next((name for name in donors if _block(name) in variant), None)
    if donor is not None:
        ours = donors[donor]
        taken = tuple(name for name in backbones if name != ours)
        moved = {_block(donor): _block(ours), f"plugmem-from={donor}": f"plugmem-from={ours}"}
        variant = [moved.get(part, part) for part in variant]
    return row.model_copy(
        update={
            "backbones": taken,
            "plugmem_from": row.plugmem_from and donors[row.plugmem_from],
            "printed": row.printed.model_copy(update={"backbone": None, "variant": ";".join(variant)}),
        }
    )


def _block(donor: str) -> str:
    """What rows without the module are told apart by in the half of a table about it."""
    return f"block={module_name(donor)}"


def module_name(donor: str) -> str:
    """What the half of a table about one backbone's memory module is called, as in `Printed.variant`."""
    return f"{donor.removesuffix('-base')}-plugmem"


def _find(which: str, folder: Path) -> Path:
    """A file, or the one of a suite that comes with tsbench."""
    if (folder / which).is_file():
        return folder / which
    shipped = shipped_suites()
    name = which.replace("/", "-table")
    if name not in shipped:
        raise TsbenchError(f"{unknown_name('suite', which, shipped)}, or give the path of a TOML file")
    return shipped[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TsbenchError(f"cannot read {path} ({error}); correct it") from error


def _mistake(error: ErrorDetails) -> str:
    """What is wrong with one value of a file; rows are counted from 1."""
    place = error["loc"]
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    if error["type"] == "extra_forbidden":
        models: dict[object, type[BaseModel]] = {"rows": Rows, "absent": Absent}
        model = Printed if "printed" in place else models.get(place[0], Suite)
        return f"{where}: {unknown_name('key', str(place[-1]), model.model_fields)}"
    if error["type"] == "missing":
        return f"{where} is missing; add it"
    return f"{where} is {error['input']!r}: {error['msg'].lower()}; correct it"
