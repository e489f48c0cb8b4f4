import subprocess
import sys

import pytest
from pydantic import ValidationError

from tsbench.data.catalog import CollectionEntry, LongEntry, RemoteFile, catalogue, find, resolve
from tsbench.errors import TsbenchError


def test_every_data_set_is_there_with_its_horizons() -> None:
    horizons = {
        name: entry.horizons if isinstance(entry, LongEntry) else entry.horizon
        for name, entry in catalogue().entries.items()
    }
    long = dict.fromkeys(
        ["ETTh1", "ETTh2", "ETTm1", "ETTm2", "Electricity", "Traffic", "Weather", "Exchange"],
        (96, 192, 336, 720),
    )
    m3 = {"M3-Yearly": 6, "M3-Quarterly": 8, "M3-Monthly": 18, "M3-Other": 8}
    m4 = {"M4-Yearly": 6, "M4-Quarterly": 8, "M4-Monthly": 18, "M4-Weekly": 13, "M4-Daily": 14}
    expected = {"demo": (96, 192), **long, "ILI": (24, 36, 48, 60), **m3, **m4, "M4-Hourly": 48}
    assert horizons == expected


def test_competitions_have_their_published_series_counts() -> None:
    counts = {}
    for group in ("M3", "M4"):
        counts[group] = sum(entry.series for entry in resolve([group]) if isinstance(entry, CollectionEntry))
    assert counts == {"M3": 3003, "M4": 100_000}


def test_every_file_has_a_checksum_and_https_addresses() -> None:
    for entry in resolve(["all"]):
        assert entry.files
        for file in entry.files:
            assert len(file.sha256) == 64
            assert file.urls
            assert all(url.startswith("https://") and url.endswith(file.path) for url in file.urls)


def test_lookup_ignores_case() -> None:
    assert find("etth1") is find("ETTh1")
    assert find("m4-HOURLY").name == "M4-Hourly"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ETTh3", r"^unknown dataset 'ETTh3'; did you mean ETTh1, ETTh2\?$"),
        ("electricty", r"did you mean Electricity\?"),
        ("qwerty", "known are demo, ETTh1"),
        ("M3", "M3 stands for several data sets; choose one of M3-Yearly"),
    ],
)
def test_when_a_name_is_unknown_then_near_names_are_given(name: str, message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        find(name)


def test_when_one_of_several_names_is_unknown_then_near_names_are_given() -> None:
    with pytest.raises(TsbenchError, match=r"unknown dataset 'ETTh3'; did you mean ETTh1, ETTh2\?"):
        resolve(["Weather", "ETTh3"])
    with pytest.raises(TsbenchError, match=r"did you mean Exchange\?"):
        resolve(["exchange_rate"])


def test_groups_expand_and_each_data_set_comes_once() -> None:
    names = [entry.name for entry in resolve(["etth2", "ETT", "Weather"])]
    assert names == ["ETTh2", "ETTh1", "ETTm1", "ETTm2", "Weather"]
    assert len(resolve(["ALL", "M4"])) == len(catalogue().entries) - 1


def test_unknown_fields_are_refused_and_entries_are_frozen() -> None:
    with pytest.raises(ValidationError, match="md5"):
        RemoteFile.model_validate({"path": "a", "urls": [], "sha256": "0", "md5": "0"})
    field = "season"
    with pytest.raises(ValidationError, match="frozen"):
        setattr(find("demo"), field, 7)


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tsbench.data.catalog import catalogue; catalogue(); "
        "assert not {'pandas', 'polars', 'torch', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
