from pathlib import Path

import page_results
import toy

from tsbench.bench.store import ResultsStore


def test_the_page_is_written_and_named(tsbench: toy.Cli, store: ResultsStore) -> None:
    page_results.write_page_results(store.root)
    result = tsbench('page --select "dataset=M3-Monthly" --output pages/m3.html')
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "pages/m3.html\n"
    assert result.stderr == ""
    text = Path("pages/m3.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "Naive2" in text and "TS-Memory's claim" not in text


def test_the_page_lies_in_the_folder_of_the_results_unless_told_otherwise(tsbench: toy.Cli) -> None:
    page_results.write_page_results(Path("elsewhere"))
    result = tsbench('page --results elsewhere --select "dataset=M3-Monthly"')
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "elsewhere/report.html\n"
    assert Path("elsewhere/report.html").is_file()
    assert not Path("results").exists()


def test_without_results_it_is_one_line(tsbench: toy.Cli) -> None:
    result = tsbench("page --results elsewhere")
    assert result.exit_code == 2
    assert result.stderr == "error: no results in elsewhere/; run `tsbench run` first\n"
    assert not Path("results").exists()
