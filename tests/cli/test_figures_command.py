from pathlib import Path

import figure_results
import pytest
import toy

from tsbench.bench.store import ResultsStore

pytest.importorskip("matplotlib")


@pytest.fixture
def results(store: ResultsStore) -> ResultsStore:
    figure_results.write_results(store.root)
    return store


def test_chosen_figures_are_written_and_named(tsbench: toy.Cli, results: ResultsStore) -> None:
    result = tsbench('figures alpha steps --output pictures --select "horizon=24"')
    assert result.exit_code == 0
    names = "alpha-ETTh1-L512-flame-small", "steps-ETTh1-L512-flame-small-24"
    expected = [Path("pictures") / f"{name}.{ending}" for name in names for ending in ("png", "pdf")]
    assert [Path(line) for line in result.stdout.splitlines()] == expected
    assert all(path.is_file() for path in expected)
    assert result.stderr == ""


def test_pictures_lie_in_the_folder_of_the_results_unless_told_otherwise(tsbench: toy.Cli) -> None:
    figure_results.write_results(Path("elsewhere"))
    result = tsbench('figures ablation --results elsewhere --select "horizon=24"')
    assert result.exit_code == 0
    expected = [
        Path("elsewhere/figures") / f"ablation-ETTh1-L512-flame-small.{ending}" for ending in ("png", "pdf")
    ]
    assert [Path(line) for line in result.stdout.splitlines()] == expected
    assert all(path.is_file() for path in expected)
    assert not Path("results").exists()


def test_what_is_missing_is_named_with_the_command_that_makes_it(
    tsbench: toy.Cli, results: ResultsStore
) -> None:
    result = tsbench('figures capacity alpha --select "plugmem=tiny method=ts-memory"')
    assert result.exit_code == 0
    assert result.stderr == "capacity: no data for it; run `tsbench run --method ts-memory --plugmem small`\n"
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("figures alpa", "error: unknown figure 'alpa'; did you mean alpha?"),
        ("figures --select dataset=ETTh9", "error: none of 16 results matches 'dataset=ETTh9'"),
        ("figures --results elsewhere alpha", "error: nothing to draw in elsewhere/; see the commands above"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    tsbench: toy.Cli, results: ResultsStore, line: str, message: str
) -> None:
    result = tsbench(line)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
