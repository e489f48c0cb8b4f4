"""Files in the formats of M3 and M4, and a catalogue whose collections are small ones generated here."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tsbench.data import catalog
from tsbench.data.catalog import CollectionEntry, RemoteFile

Series = NDArray[np.float64]


def install(monkeypatch: pytest.MonkeyPatch, home: Path, collections: Mapping[str, list[Series]]) -> None:
    """Replace collections of the catalogue by these series [T + H], as files below TSBENCH_HOME."""
    known = catalog.catalogue()
    entries = dict(known.entries)
    for name, series in collections.items():
        entry = entries[name]
        assert isinstance(entry, CollectionEntry)
        folder = home / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        paths = write_m3(folder, entry, series) if entry.sheet else write_m4_pair(folder, entry, series)
        files = tuple(
            RemoteFile(path=path.name, urls=(), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
            for path in paths
        )
        update = {"source": name, "files": files, "series": len(series)}
        entries[name] = entry.model_copy(update=update)
    changed = known.model_copy(update={"entries": entries})
    monkeypatch.setattr(catalog, "catalogue", lambda: changed)


def seasonal(n: int, length: int, season: int, seed: int = 0) -> list[Series]:
    """Positive series of different lengths from `length` on: level, trend, season, noise."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(n):
        step = np.arange(length + 3 * (place % 4))
        wave = 1 + 0.3 * np.sin(2 * np.pi * step / max(season, 2) + rng.uniform(0, 6)) * (season > 1)
        noise = rng.normal(1, 0.02, len(step))
        found.append(np.round(10 ** rng.uniform(1, 4) * (1 + 0.01 * step) * wave * noise, 3))
    return found


def write_m3(folder: Path, entry: CollectionEntry, series: list[Series]) -> list[Path]:
    width = max(map(len, series))
    rows: list[list[str | float]] = [["Series", "N", "NF", "Category", "Starting Year", "", *range(width)]]
    for place, values in enumerate(series):
        padding = [""] * (width - len(values))
        known = [f"N{place + 1:4}", len(values), entry.horizon, "MICRO", 1975, 1]
        rows.append([*known, *map(float, values), *padding])
    assert entry.sheet
    return [write_workbook(folder / "M3C.xlsx", entry.sheet, rows)]


def write_m4_pair(folder: Path, entry: CollectionEntry, series: list[Series]) -> list[Path]:
    names = [f"{entry.name[3]}{place + 1}" for place in range(len(series))]
    parts = {"train": slice(None, -entry.horizon), "test": slice(-entry.horizon, None)}
    return [
        write_m4(
            folder / f"{part}.csv",
            {name: list(values[rows]) for name, values in zip(names, series, strict=True)},
        )
        for part, rows in parts.items()
    ]


def write_workbook(path: Path, sheet: str, rows: list[list[str | float]]) -> Path:
    """The smallest .xlsx with one sheet; the reader takes it as it takes .xls."""

    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{office}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            f'<sheet name="{sheet}" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{office}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>',
        )
    return path


def write_m4(path: Path, series: dict[str, list[float]]) -> Path:
    """Every value quoted, short lines padded with empty unquoted cells to the longest, as published."""
    width = max(len(values) for values in series.values())
    lines = [",".join(f'"V{index + 1}"' for index in range(width + 1))]
    for name, values in series.items():
        padding = [""] * (width - len(values))
        lines.append(",".join([f'"{name}"', *(f'"{value:.10g}"' for value in values), *padding]))
    path.write_text("\n".join(lines) + "\n")
    return path
