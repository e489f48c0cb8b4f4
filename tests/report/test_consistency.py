"""Every inconsistency that a reading of the two papers listed is found by the program, and no other.

The expected figures were written down by hand from the papers' tables and text.
"""

import csv
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tsbench.report
from tsbench.bench.audit.findings import Audit
from tsbench.report.audit import audit_tables, render_audit
from tsbench.report.consistency import audit_published
from tsbench.report.consistency.arithmetic import AVERAGES, DELTAS, HALVES, SHARES, SUMS
from tsbench.report.consistency.claims import CHECK as CLAIMS
from tsbench.report.consistency.repeats import SAME, SEQUENCE, TWINS
from tsbench.report.consistency.timing import QUERIES, SIZES

REFERENCE = Path(tsbench.report.__file__).parent / "reference"

HELD = {  # looked at, off
    "F-LLM: tables of averages repeat the Avg rows": (168, 0),
    "TS-Memory: tables of averages repeat the Avg rows": (712, 0),
    "percentages in brackets are the rounded changes": (280, 0),
    SUMS: (400, 0),
    "Table 12 has the retrieval shares of Table 11": (200, 0),
}
OFF = {
    AVERAGES: (1184, 30),
    HALVES: (69, 9),
    DELTAS: (440, 1),
    SAME: (760, 10),
    TWINS: (3492, 6),
    SEQUENCE: (2730, 1),
    QUERIES: (160, 96),
    SIZES: (15, 15),
}

EXPECTED = """
    fault | F-LLM, Table 8 | ETTh1 avg f-llm llama-2-7b mse
        0.376 is printed, the mean of the four horizons is 0.37675
    fault | F-LLM, Table 8 | f-llm
        all 14 averages are cut off, not rounded, which lowers 5
    fault | TS-Memory, Table 12 | ETTm2 avg lora
        307.3 is printed, the mean of the four horizons is 307.525; it is the figure of ETTm1
    fault | TS-Memory, Table 10 | Electricity avg ts-rag
        0.1566 is printed, the mean of the four horizons is 0.156675
    note | TS-Memory, several tables | averages
        9 of the 69 averages that end in an exact half are printed downwards, 8 of them in Table 6
    fault | TS-Memory, Table 14 | ETTm1 avg ts-memory chronos-2 plugmem-from=sundial-base mse
        -14.56 % is printed, 0.4332 to 0.3700 is -14.59 %
    fault | TS-Memory, Table 12 | Traffic 96 raft
        26.9 % is printed, the times beside it give 26.8 %
    note | TS-Memory, Table 11 | retrieval_fraction
        Avg shares are means of the four shares, not shares of the averages
    fault | F-LLM, several tables | ETTh1 96 f-llm
        0.389 in Tables 3, 6; 0.379 in Tables 4, 5, 8
    fault | F-LLM, several tables | Weather 720 frozen-llm
        0.341 in Tables 3; 0.340 in Tables 6
    fault | TS-Memory, several tables | ETTh1 336 origin
        0.4331 in Tables 9, 10, 13, 15 (ts-memory), 15 (lora), 16; 0.4332 in Tables 14
    fault | TS-Memory, several tables | Electricity 192 origin
        0.1428 in Tables 9, 10, 13, 16; 0.1429 in Tables 14
    fault | TS-Memory, several tables | ETTh2 avg origin
        0.3666 in Tables 9, 10, 13, 15 (ts-memory); 0.3665 in Tables 14
    fault | TS-Memory, several tables | ETTm2 avg origin
        0.2905 in Tables 9, 10, 13, 15 (ts-memory); 0.2904 in Tables 14
    fault | TS-Memory, several tables | ETTh2 avg origin
        0.367 in Tables 2, 3, 5; 0.366 in Tables 6
    fault | TS-Memory, several tables | ETTm2 avg origin
        0.291 in Tables 2, 3, 5; 0.290 in Tables 6
    fault | TS-Memory, several tables | ETTm2 avg lora
        0.2775 in Tables 10; 0.2774 in Tables 15
    fault | TS-Memory, several tables | Exchange avg ts-memory
        0.4060 in Tables 9, 10; 0.4061 in Tables 16
    note | F-LLM, Table 8 | Electricity 720
        unitime and itransformer share every figure: 0.254, 0.335
    note | F-LLM, Table 8 | Weather 720
        unitime and itransformer share every figure: 0.329, 0.340
    note | F-LLM, Table 8 | ETTh1 192 timesnet mse
        0.384, 0.557, 0.491, 0.521
    note | TS-Memory, Table 14 | Exchange 720 chronos-bolt-base
        origin and ts-memory plugmem-from=sundial-base share every figure
    note | TS-Memory, Table 14 | Exchange 720 chronos-2
        origin and ts-memory plugmem-from=sundial-base share every figure
    note | TS-Memory, Table 14 | Exchange 720 timesfm
        origin and ts-memory plugmem-from=sundial-base share every figure
    fault | F-LLM, Table 8 | method=f-llm horizon=720
        5.6; at 720 over 7 data sets (Weather and Traffic get worse), in percent 1.28; Avg rows against
        autotimes alone, in percent 5.57
    fault | F-LLM, Table 8 | metric=mae
        best or tied in 14 of 28 cells
    fault | F-LLM, Table 1 | number-of-datasets
        Section 6.1 states number-of-datasets 5; Table 1 prints 7
    fault | F-LLM, Table 1 | number-of-datasets
        Section B states number-of-datasets 5; Table 1 prints 7
    fault | F-LLM, Table 8 | dataset=Solar-Energy
        no table does
    fault | F-LLM, Table 1 | method=fedformer
        Table 1 prints none of it
    fault | F-LLM, Table 6 | method=frozen-llm-lora dataset=ETTh1
        3 of 8 cells improve
    fault | F-LLM, Table 8 | method=f-llm metric=mse
        lie between 0.148 and 0.376
    fault | TS-Memory, Table 15 | metric=mse setting=distribution-shift
        3.5; mean of the Avg rows 4.04; mean over horizons 3.89
    fault | TS-Memory, Table 15 | metric=mse setting=in-domain
        6.8; mean of the Avg rows 6.69; mean over horizons 6.47
    note | TS-Memory, Table 9 | backbone=sundial-base
        mean of the Avg rows 4.29; mean over horizons 5.05; at 96 6.83; at 192 5.11; at 336 5.54; at 720
        2.72
    note | TS-Memory, Table 9 | backbone=timesfm
        mean of the Avg rows 6.98; mean over horizons 7.34; at 96 8.51; at 192 7.24; at 336 8.49; at 720
        5.11
    fault | TS-Memory, Table 9 | horizon=avg metric=mse
        4 of 32 reach 10 %
    fault | TS-Memory, Table 5 | number-of-datasets
        8; Table 5 prints 7
    note | TS-Memory, Table 4 | method=ts-rag
        least of all data sets 1.95; largest 2.97
    fault | TS-Memory, Table 12 | method=ts-memory metric=total_s
        means by horizon are 5.4, 5.7, 4.1, 3.5 %
    fault | TS-Memory, Table 16 | setting=in-domain
        Table 16 prints none of it, Table 15 does
    fault | TS-Memory, Table 15 | setting=dom-shift
        no table does
    note | TS-Memory, Table 12 | origin
        (N - H - 512) C in 32 of 32 cells
    note | TS-Memory, Table 12 | ts-memory
        (N - H - 512) C in 32 of 32 cells
    fault | TS-Memory, Table 12 | raft
        (N - H) C - 5120 in 31 of 32 cells, where Origin has (N - H - 512) C; its overhead on Exchange is
        -9.6 % per run and +21.93 % per query
    fault | TS-Memory, Table 12 | ts-rag
        (N - H) C - 5120 in 32 of 32 cells
    fault | TS-Memory, Table 12 | lora
        (N - H) C - 5120 in 1 of 32 cells
    note | TS-Memory, Table 8 | train sizes
        8 of 8 data sets count windows of 96 steps
    note | F-LLM, Table 7 | train sizes
        7 of 7 data sets count windows of 96 steps
"""
"""Severity, group and words of the cell of a finding; below it, words of its text.

The 30 averages that are off are listed in test_published; here are those with more to say.
"""


# Claims that the tables bear out.
TRUE_CLAIMS = [
    "ts-memory,5.2,reduction,9,horizon=avg metric=mse,5.8,5.8",
    "ts-memory,5.2,reduction,9,horizon=avg metric=mae,2.1,2.1",
    "ts-memory,5.2,largest-reduction,9,horizon=avg metric=mse,16.0,16.0",
    "ts-memory,5.2,largest-reduction,9,horizon=avg metric=mae,6.0,6.0",
    "f-llm,6.1,share-of-cells-best,8,method=f-llm metric=mse,51,100",
]


@cache
def published_audit() -> Audit:
    return audit_published()


def expected() -> Iterator[tuple[str, str, str, list[str]]]:
    """The entries of EXPECTED."""
    for entry in re.split(r"\n {4}(?=\S)", EXPECTED.rstrip())[1:]:
        head, *texts = (line.strip() for line in entry.splitlines())
        severity, group, cell = head.split(" | ")
        yield severity, group, cell, texts


@pytest.mark.parametrize(("severity", "group", "cell", "texts"), list(expected()))
def test_the_program_finds(severity: str, group: str, cell: str, texts: list[str]) -> None:
    found = [
        finding
        for finding in published_audit().findings
        if finding.group == group and cell in finding.cell and all(text in finding.text for text in texts)
    ]
    assert found, f"nothing like it in {group}"
    assert {finding.severity for finding in found} == {severity}


def test_the_list_is_whole() -> None:
    assert len(list(expected())) == 49


def test_what_holds_holds_in_every_cell_and_the_rest_is_off_as_often_as_listed() -> None:
    counts = {check.name: (check.looked, check.off) for check in published_audit().checks}
    for name, expected in (HELD | OFF).items():
        assert counts[name] == expected, name
    assert counts.keys() == HELD.keys() | OFF.keys() | {SHARES, CLAIMS}


def test_published_findings_are_no_leaks_and_go_by_paper_and_table() -> None:
    audit = published_audit()
    assert audit.leaks == ()
    groups = list(dict.fromkeys(finding.group for finding in audit.findings))
    assert groups.index("F-LLM, Table 8") < groups.index("TS-Memory, Table 9")
    assert groups.index("TS-Memory, Table 9") < groups.index("TS-Memory, Table 10")
    assert [table.title for table in audit_tables(audit)] == [*groups, "What was checked"]


@pytest.mark.parametrize("line", TRUE_CLAIMS)
def test_claims_that_the_tables_bear_out_are_not_reported(line: str) -> None:
    assert line in (REFERENCE / "claims.csv").read_text(encoding="utf-8").splitlines()
    _, section, quantity, table, select, low, _ = line.split(",")
    stated = f"Section {section} states {quantity} {low}"
    group = f"Table {table}"
    for finding in published_audit().findings:
        assert not (finding.group.endswith(group) and finding.cell == select and stated in finding.text)


@pytest.mark.parametrize("name", ["claims.csv", "deltas.csv", "datasets.csv"])
def test_reference_files_hold_names_and_numbers_and_no_sentences(name: str) -> None:
    rows = list(csv.DictReader((REFERENCE / name).read_text(encoding="utf-8").splitlines()))
    assert rows
    for row in rows:
        for field in row.values():
            assert len(field.split()) <= 4
            assert all(len(word) < 50 for word in field.split())


def test_every_delta_row_is_there() -> None:
    rows = list(csv.DictReader((REFERENCE / "deltas.csv").read_text(encoding="utf-8").splitlines()))
    assert sum(int(row["table"]) >= 9 for row in rows) == 440
    assert sum(int(row["table"]) < 9 for row in rows) == 280


@pytest.mark.parametrize("format", ["markdown", "text", "json"])
def test_every_format_holds_every_finding(format: str) -> None:
    text = render_audit(published_audit(), format)  # type: ignore[arg-type]
    assert all(finding.text in text for finding in published_audit().findings)
