"""The page of all results: everything is in it, nothing in it is markup but its own, and it loads nothing."""

import base64
import json
import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import page_results
import pytest
from figure_results import DECILES, details
from page_results import ERROR, NASTY

from tsbench.bench.store import ResultsStore
from tsbench.report.labels import spread
from tsbench.report.page.document import page
from tsbench.report.page.forecasts import Fan, Windows, forecast_windows, packed, thinned
from tsbench.report.page.provenance import as_json
from tsbench.report.page.scores import score_rows

pytest.importorskip("matplotlib")

VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Every element with its attributes, and the text of the rows of the score tables by record."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[tuple[dict[str, str | None], str]]] = {}
        self.open: list[str] = []
        self.key = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.key = (dict(attrs).get("data-made") or "").split(" ")[0]
        if tag in ("td", "th") and self.key:
            self.rows.setdefault(self.key, []).append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.key and {"td", "th"} & set(self.open[-4:]):
            attributes, text = self.rows[self.key][-1]
            self.rows[self.key][-1] = (attributes, text + data)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr":
            self.key = ""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultsStore:
    return page_results.write_page_results(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def text(store: ResultsStore) -> str:
    return page(store)


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    return Reader(text)


def data(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def cells(reader: Reader, store: ResultsStore, **fields: Any) -> list[tuple[dict[str, str | None], str]]:
    """The score row of the only record with such fields."""
    [record] = [
        record
        for record in store.records()
        if all(getattr(record.spec, name) == value for name, value in fields.items())
        and record.spec.seed == 0
        and record.key in reader.rows
        and not (record.spec.options and record.spec.options.alpha_policy == "oracle")
    ]
    return reader.rows[record.key]


def test_every_record_has_its_scores_in_a_row(reader: Reader, store: ResultsStore) -> None:
    seeds: dict[str, list[Any]] = {}
    for record in store.records():
        seeds.setdefault(record.spec.model_copy(update={"seed": 0}).model_dump_json(), []).append(record)
    for records in seeds.values():
        records.sort(key=lambda record: record.spec.seed)
        shown = [text for _, text in reader.rows[records[0].key]]
        metrics = [
            name for name in ("mse", "mae", "crps", "smape", "mase", "owa") if name in records[0].metrics
        ]
        for metric in metrics:
            expected = spread([record.metrics[metric] for record in records])
            assert any(cell.startswith(expected) for cell in shown), (metric, shown)
    assert len(reader.rows) == len(seeds)


def test_best_and_second_best_are_marked_and_a_leaking_row_is_neither(
    text: str, reader: Reader, store: ResultsStore
) -> None:
    by_method = {
        method: cells(reader, store, method=method, horizon=24, dataset="ETTh1", backbone="flame-small")[6][1]
        for method in ("origin", "raft", "ts-memory")
    }
    assert by_method["ts-memory"].endswith(" best") and "second" not in by_method["ts-memory"]
    assert by_method["origin"].endswith(" second best")
    assert by_method["raft"] == "0.4010"
    [leak] = [
        (attributes, reader.rows[str(attributes["data-made"])])
        for tag, attributes in reader.elements
        if tag == "tr" and "leak" in (attributes.get("class") or "")
    ]
    assert leak[1][0][1].endswith("†leak")
    assert leak[1][6][1] == "0.2000"


def test_a_gain_stands_with_its_verdict_and_one_inside_the_noise_is_grey(
    reader: Reader, store: ResultsStore
) -> None:
    memory = cells(reader, store, method="ts-memory", dataset="ETTh1")[7]
    assert memory[1].endswith("better") and re.match(r"-2\d\.\d \[-", memory[1])
    raft = cells(reader, store, method="raft")[7]
    assert raft[1].endswith("inside the noise")
    assert "undecided" in str(raft[0]["class"])
    assert "undecided" not in str(memory[0]["class"])


def test_what_users_name_is_text(text: str) -> None:
    assert escape(NASTY) in text
    assert escape(ERROR) in text
    for markup in ("<img src=x", "alert(1)>", "<b>that", "<script>alert"):
        assert markup not in text
    assert any(NASTY in setting for setting in data(text)["settings"])


def test_nothing_is_loaded_and_the_policy_allows_only_what_is_inside(text: str, reader: Reader) -> None:
    assert not re.search(r"https?:|//[a-z]+\.", text)
    for tag, attributes in reader.elements:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert re.match(r"data:|#", attributes.get(name) or "#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    [policy] = [
        a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert str(policy).startswith("default-src 'none'; img-src data:; ")
    for name in ("style", "script"):
        [inside] = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in str(policy)
    assert "innerHTML" not in text


def test_the_same_results_give_the_same_bytes(text: str, store: ResultsStore) -> None:
    assert page(store) == text


def test_it_is_built_for_screen_readers_and_without_a_script(text: str, reader: Reader) -> None:
    names = [tag for tag, _ in reader.elements]
    assert [names.count(name) for name in ("h1", "main", "header", "nav")] == [1, 1, 1, 1]
    assert not reader.open
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.elements:
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "img":
            assert len(str(attributes["alt"])) > 40
        for name in ("for", "aria-labelledby"):
            assert attributes.get(name, ids[0]) in ids
        if "data-script" in attributes:
            assert "hidden" in attributes  # needs the script, which shows it
    assert text.count("<table>") == text.count("<caption>") == names.count("table")
    rows = [row for body in text.split("<tbody>")[1:] for row in body.split("</tbody>")[0].split("<tr")[1:]]
    assert rows and all('scope="row"' in row for row in rows)
    captions = [attributes for tag, attributes in reader.elements if tag == "figcaption"]
    assert captions and not any("role" in attributes for attributes in captions)
    assert ("span", {"id": "drawing-text", "role": "status"}) in reader.elements


def test_provenance_of_every_figure_is_inside(text: str, reader: Reader, store: ResultsStore) -> None:
    facts = data(text)["facts"]
    named = {
        key
        for _, attributes in reader.elements
        for key in str(attributes.get("data-made", "")).split(" ")
        if key
    }
    assert named <= facts.keys()
    assert {record.key for record in store.records()} <= named
    certificate = dict(facts[store.records()[0].key])
    assert {"Record", "Data SHA-256", "Code", "Device", "Finished", "Scored", "Seed", "Specification"} <= set(
        certificate
    )
    assert certificate["Device"] == "Some CPU, 1 thread"
    assert certificate["Scored"] == "700 of 2800, stride 4"


def test_sections_say_what_is_absent(text: str) -> None:
    assert "Without stored sample forecasts, so not shown: 1 cell." in text
    assert "capacity: no data for it; run `tsbench run" in text
    for name in ("claim", "significance", "papers", "latency", "failures"):
        assert f'<section id="{name}"' in text


def test_without_matplotlib_the_page_says_so(store: ResultsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = page(store, "horizon=48")
    assert "figures need the package matplotlib; pip install" in text
    assert "<img" not in text


def unpacked(packed: Any) -> Any:
    values = np.frombuffer(base64.b64decode(packed["data"]), "<i2").astype(float)
    return np.where(values == -32768, np.nan, values * packed["scale"]).reshape(packed["shape"])


def test_forecasts_survive_packing(store: ResultsStore) -> None:
    found, absent = forecast_windows(store.records(), store)
    assert absent == 2  # the cell without details, and the collection
    [one] = [each for each in found if each.label.startswith("ETTh1")]
    [shown] = [each for each in packed(found) if each["label"] == one.label]
    stored = details(24, DECILES).samples
    assert shown["channels"] == list(stored.channels)
    np.testing.assert_allclose(unpacked(shown["target"]), stored.target, atol=2e-4)
    np.testing.assert_allclose(unpacked(shown["context"]), stored.context, atol=2e-4)
    series = unpacked(shown["methods"][0]["series"])
    np.testing.assert_allclose(series[:, :, 0], stored.forecast[:, :, 4], atol=2e-4)
    assert shown["methods"][0]["bands"] == [[1, 2, "80 % interval"], [3, 4, "40 % interval"]]
    for place, level in enumerate((0, 8, 2, 6), start=1):
        np.testing.assert_allclose(series[:, :, place], stored.forecast[:, :, level], atol=2e-4)


def test_missing_values_survive_packing() -> None:
    samples = details(24, DECILES).samples
    samples.target[0, 0, 3] = np.nan
    one = Windows("w", samples, (Fan("f", "k", (), samples.forecast[:, :, :1]),))
    target = unpacked(packed([one])[0]["target"])
    assert np.isnan(target[0, 0, 3]) and np.isnan(target).sum() == 1


@pytest.mark.parametrize(("most", "windows"), [(10**9, 4), (7_000, 3), (1, 1)])
def test_windows_are_left_out_evenly_until_the_page_is_small_enough(most: int, windows: int) -> None:
    samples = details(24, DECILES).samples  # 4 windows x 3 channels x (48 + 24 + 9 x 24) values of 8/3 bytes
    one = Windows("w", samples, (Fan("f", "k", (), samples.forecast),))
    [kept] = thinned([one], most)
    assert len(kept.samples.start) == len(kept.fans[0].series) == windows
    assert kept.samples.start[0] == samples.start[0]
    if windows > 1:
        assert kept.samples.start[-1] == samples.start[-1]


def test_json_cannot_end_its_element() -> None:
    assert "<" not in as_json({"a": "</script><!--"})
    assert json.loads(as_json({"a": "</script>&>"})) == {"a": "</script>&>"}


def test_two_rows_have_no_second_best(store: ResultsStore) -> None:
    rows = [r for r in store.records() if r.spec.method in ("origin", "raft") and r.spec.dataset == "ETTh1"]
    two = [r for r in rows if r.spec.horizon == 24 and r.spec.backbone == "flame-small"]
    long, collection = score_rows(two, {})
    assert [(row.scores[0].best, row.scores[0].second) for row in long] == [(True, False), (False, False)]
    assert collection == []


def test_files_of_the_page_are_packaged() -> None:
    folder = Path(page.__code__.co_filename).parent

    def endings() -> Iterator[str]:
        yield from sorted(path.suffix for path in folder.iterdir() if path.suffix in (".html", ".css", ".js"))

    assert list(endings()) == [".css", ".html", ".html", ".js"]
