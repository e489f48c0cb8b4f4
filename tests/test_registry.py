import subprocess
import sys
from pathlib import Path

import pytest

from tsbench import registry
from tsbench.backbones.base import BackboneOptions
from tsbench.errors import TsbenchError


def provide(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, entry_points: str) -> None:
    """Put an installed package with these entry points on the path."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(folder)


def test_importing_and_listing_loads_nothing_heavy() -> None:
    script = (
        "import sys; from tsbench import registry; registry.entries('backbone'); registry.entries('method');"
        "[entry.requires and entry.requires.installed for entry in registry.entries('backbone')];"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'chronos', 'fracast', 'neuralforecast'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_names_are_unique_and_aliases_resolve_to_the_canonical_name() -> None:
    for kind in ("backbone", "method"):
        names = [entry.name for entry in registry.entries(kind)]
        assert len(names) == len(set(names))
    assert registry.find("backbone", "chronos-bolt").name == "chronos-bolt-base"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("chronos-blot", r"^unknown backbone 'chronos-blot'; did you mean chronos-bolt\?$"),
        ("Naive-Last", r"did you mean naive-last\?$"),
        ("zzz", r"^unknown backbone 'zzz'; known: auto-arima, auto-ets, autoformer, chronos-2, "),
    ],
)
def test_unknown_name_is_answered_with_near_names_or_all(typed: str, message: str) -> None:
    with pytest.raises(TsbenchError, match=message):
        registry.find("backbone", typed)


@pytest.mark.parametrize("entry", registry.BUILT_IN["backbone"], ids=lambda entry: entry.name)
def test_every_built_in_backbone_points_at_a_factory(entry: registry.Entry) -> None:
    if entry.requires is not None and not entry.requires.installed:
        pytest.skip(f"{entry.requires.package} is not installed")
    assert callable(registry.load("backbone", entry.name))


def test_missing_package_is_one_line_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chronos", None)
    with pytest.raises(TsbenchError) as caught:
        registry.load_backbone(BackboneOptions("chronos-bolt"))
    assert str(caught.value) == (
        "backbone 'chronos-bolt-base' needs the package chronos-forecasting; pip install 'tsbench[chronos]'"
    )


def test_load_backbone_hands_the_options_to_the_factory() -> None:
    backbone = registry.load_backbone(BackboneOptions("naive-seasonal", season=96))
    assert (backbone.name, backbone.identity) == ("naive-seasonal", "naive-seasonal-m96-v1")


def test_factory_receives_the_canonical_name_for_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsbench.backbones.chronos.load_bolt", lambda options: options)
    assert registry.load_backbone(BackboneOptions("chronos-bolt", device="cuda")) == BackboneOptions(
        "chronos-bolt-base", device="cuda"
    )


def test_another_package_adds_a_backbone_by_entry_point(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath("acme_models.py").write_text("def load(options): return ('acme', options.season)\n")
    provide(monkeypatch, tmp_path, "acme", "[tsbench.backbones]\nacme-one = acme_models:load\n")
    assert registry.find("backbone", "acme-one").provider == "acme"
    assert registry.load_backbone(BackboneOptions("acme-one", season=7)) == ("acme", 7)


@pytest.mark.parametrize("taken", ["naive-last", "chronos-bolt"])
def test_entry_point_that_takes_a_built_in_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken: str
) -> None:
    provide(monkeypatch, tmp_path, "acme", f"[tsbench.backbones]\n{taken} = acme_models:load\n")
    with pytest.raises(TsbenchError, match=f"'{taken}' is registered by tsbench and by acme; uninstall one"):
        registry.find("backbone", "naive-seasonal")


def test_two_packages_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("acme", "bolts"):
        provide(monkeypatch, tmp_path / package, package, "[tsbench.methods]\nmagic = somewhere:METHOD\n")
    with pytest.raises(TsbenchError, match="method 'magic' is registered by"):
        registry.entries("method")


def test_broken_entry_point_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    provide(monkeypatch, tmp_path, "acme", "[tsbench.backbones]\nacme-one = acme_absent:load\n")
    with pytest.raises(
        TsbenchError, match=r"cannot import backbone 'acme-one' .*acme_absent.*reinstall acme"
    ):
        registry.load_backbone(BackboneOptions("acme-one"))
