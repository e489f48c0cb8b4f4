import json
from dataclasses import asdict, replace
from pathlib import Path

import figure_results
import numpy as np
import pytest

from tsbench.bench.diagnoses import Diagnosis, load_diagnosis, save_diagnosis
from tsbench.errors import TsbenchError


@pytest.fixture
def diagnosis() -> Diagnosis:
    found = figure_results.diagnosis()
    nothing = np.full(len(found.stability.difference.low), np.nan)
    difference = replace(found.stability.difference, low=nothing)
    return replace(found, stability=replace(found.stability, difference=difference))


def test_a_diagnosis_survives_its_file_to_the_last_bit(diagnosis: Diagnosis, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.json"
    save_diagnosis(path, diagnosis)
    found = load_diagnosis(path, diagnosis.key)
    assert found is not None
    assert (found.spec, found.provenance) == (diagnosis.spec, diagnosis.provenance)
    np.testing.assert_equal(asdict(found.stability), asdict(diagnosis.stability))
    json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN, which is not JSON


def test_only_the_diagnosis_of_the_same_cell_is_reused(diagnosis: Diagnosis, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    assert load_diagnosis(path, diagnosis.key) is None
    save_diagnosis(path, diagnosis)
    assert load_diagnosis(path, "another key") is None


@pytest.mark.parametrize("content", ["", "{}", '{"key": "k", "stability": 1}'])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    with pytest.raises(TsbenchError, match=r"cannot read .*one\.json .*; delete it and run again"):
        load_diagnosis(path, "k")
