from test_tables import make_record, memory_spec, origin_spec

from tsbench.report.labels import MISSING
from tsbench.report.render import render
from tsbench.report.summary import summary_tables


def test_each_data_set_is_a_row_and_its_own_best_is_marked() -> None:
    records = [
        make_record(origin_spec(dataset="ETTh1"), mse=0.41, crps=0.30),
        make_record(memory_spec(dataset="ETTh1"), mse=0.39, crps=0.31, alpha=0.2),
        make_record(origin_spec(dataset="Weather"), mse=0.20, crps=0.25),
        make_record(memory_spec(dataset="Weather"), mse=0.22, crps=0.24, alpha=0.1),
    ]
    (by_mse,) = summary_tables(records, "mse")
    assert by_mse.columns == ("Data set", "Windows", "Origin (fracast)", "TS-Memory (fracast)")
    assert [[cell.text for cell in row] for row in by_mse.rows] == [
        ["ETTh1", "349 of 2785", "0.4100", "0.3900"],
        ["Weather", "349 of 2785", "0.2000", "0.2200"],
    ]
    assert [[cell.best for cell in row[2:]] for row in by_mse.rows] == [[False, True], [True, False]]
    (by_crps,) = summary_tables(records, "crps")
    assert [[cell.best for cell in row[2:]] for row in by_crps.rows] == [[True, False], [False, True]]


def test_a_method_that_was_not_run_is_missing_and_other_horizons_stand_apart() -> None:
    records = [
        make_record(origin_spec("naive-last", dataset="ETTh1")),
        make_record(memory_spec(dataset="Weather")),
        make_record(origin_spec("naive-last", dataset="ETTh1", horizon=192)),
    ]
    at_96, at_192 = summary_tables(records, "mse")
    assert [[cell.text for cell in row[2:]] for row in at_96.rows] == [
        ["0.4000", MISSING],
        [MISSING, "0.4000"],
    ]
    assert at_192.columns == ("Data set", "Windows", "Repeat last")
    assert "H = 192" in at_192.title


def test_an_oracle_row_is_never_the_best_of_a_summary() -> None:
    records = [
        make_record(origin_spec(), mse=0.41),
        make_record(memory_spec(), mse=0.40),
        make_record(memory_spec({"alpha_policy": "oracle"}), mse=0.30),
    ]
    (table,) = summary_tables(records, "mse")
    assert [cell.best for cell in table.rows[0][2:]] == [False, True, False]
    assert "**0.4000**" in render([table], "markdown")


def test_of_two_settings_of_a_data_set_the_one_with_more_methods_is_shown() -> None:
    records = [
        make_record(origin_spec(), mse=0.41, stride=4),
        make_record(origin_spec(), mse=0.42, stride=8),
        make_record(memory_spec(), mse=0.40, stride=8),
    ]
    (table,) = summary_tables(records, "mse")
    assert [[cell.text for cell in row[2:]] for row in table.rows] == [["0.4200", "0.4000"]]
    assert "every setting" in " ".join(table.notes)
