from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsbench import config
from tsbench.config import (
    PROFILES,
    CellSpec,
    FLlmOptions,
    Profile,
    TeacherOptions,
    TsMemoryOptions,
    digest,
    profile,
)
from tsbench.errors import TsbenchError

# A value for every field that differs from both its default and SPEC's.
OTHER: dict[str, Any] = {
    "method": "origin",
    "backbone": "chronos-2",
    "dataset": "ETTh2",
    "horizon": 97,
    "lookback": 513,
    "seed": 7,
    "profile": "paper",
    "rollout": "expand",
    "checkpoint": "somewhere",
    "test_stride": 3,
    "drop_last": 32,
    "options": None,
    "f_llm": FLlmOptions(),
    "train_dataset": "M4-Monthly",
    "plugmem_from": "chronos-2",
    "precision": "bf16",
    "train_stride": 20,
    "samples": 100,
    "device": "cuda:1",
}
OTHER_OPTIONS: dict[str, Any] = {
    "teacher": TeacherOptions(exclusion="self"),
    "recipe": "released",
    "ablation": "no-gate",
    "plugmem": "large",
    "alpha_policy": "oracle",
    "alpha_criterion": "mse",
}
OTHER_TEACHER: dict[str, Any] = {
    "exclusion": "window",
    "pool": 51,
    "neighbours": 19,
    "alignment_tail": 17,
    "temperature": 0.2,
}
OTHER_F_LLM: dict[str, Any] = {
    "form": "mlp",
    "patch": 24,
    "layers": 2,
    "observer_window": 3,
    "observer_seed": "zeros",
    "context": "growing",
    "lipschitz": "none",
}
NOT_HASHED = {"device"}
SPEC = CellSpec(
    method="ts-memory", backbone="fracast", dataset="ETTh1", horizon=96, options=TsMemoryOptions()
)


@pytest.mark.parametrize(
    ("model", "others"),
    [
        (CellSpec, OTHER),
        (TsMemoryOptions, OTHER_OPTIONS),
        (TeacherOptions, OTHER_TEACHER),
        (FLlmOptions, OTHER_F_LLM),
    ],
)
def test_the_tables_above_know_every_field(model: Any, others: dict[str, Any]) -> None:
    assert others.keys() == model.model_fields.keys()


@pytest.mark.parametrize("field", OTHER)
def test_a_field_alters_the_hash_unless_it_cannot_move_a_score(field: str) -> None:
    changed = SPEC.model_copy(update={field: OTHER[field]})
    assert changed != SPEC
    assert (changed.content_hash("data") == SPEC.content_hash("data")) == (field in NOT_HASHED)


@pytest.mark.parametrize("field", OTHER_OPTIONS)
def test_every_option_alters_the_hash(field: str) -> None:
    options = TsMemoryOptions().model_copy(update={field: OTHER_OPTIONS[field]})
    assert SPEC.model_copy(update={"options": options}).content_hash() != SPEC.content_hash()


@pytest.mark.parametrize("field", OTHER_TEACHER)
def test_every_setting_of_the_teacher_alters_the_hash(field: str) -> None:
    teacher = TeacherOptions().model_copy(update={field: OTHER_TEACHER[field]})
    options = TsMemoryOptions(teacher=teacher)
    assert SPEC.model_copy(update={"options": options}).content_hash() != SPEC.content_hash()


@pytest.mark.parametrize("field", OTHER_F_LLM)
def test_every_setting_of_f_llm_alters_the_hash(field: str) -> None:
    plain = SPEC.model_copy(update={"f_llm": FLlmOptions()})
    changed = FLlmOptions().model_copy(update={field: OTHER_F_LLM[field]})
    assert SPEC.model_copy(update={"f_llm": changed}).content_hash() != plain.content_hash()


def test_data_and_protocol_alter_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.content_hash("data")
    assert SPEC.content_hash("other data") != before
    assert SPEC.content_hash("data", "split") != before
    monkeypatch.setattr(config, "PROTOCOL_VERSION", config.PROTOCOL_VERSION + 1)
    assert SPEC.content_hash("data") != before


@given(
    horizon=st.integers(1, 10**4),
    seed=st.integers(0, 2**32),
    exclusion=st.sampled_from(["self", "target", "window"]),
    device=st.sampled_from(["cpu", "cuda", "cuda:1"]),
)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_equal_specs_are_equal_keys_and_survive_json(
    horizon: int, seed: int, exclusion: Any, device: str
) -> None:
    def make() -> CellSpec:
        options = TsMemoryOptions(teacher=TeacherOptions(exclusion=exclusion))
        return SPEC.model_copy(
            update={"horizon": horizon, "seed": seed, "options": options, "device": device}
        )

    first, second = make(), make()
    assert first == second
    assert hash(first) == hash(second)
    assert first.content_hash() == second.content_hash()
    again = CellSpec.model_validate_json(first.model_dump_json())
    assert again == first
    assert again.content_hash() == first.content_hash()


def test_keys_of_stored_results_stay_valid() -> None:
    spec = CellSpec(method="origin", backbone="naive-last", dataset="demo", horizon=96)
    assert spec.content_hash("data") == "a0aeec081a05cd4ebb25d8ee674f304766bb32a5242b44a1fdeb8bf275972859"


def test_a_spec_from_before_its_youngest_fields_keeps_its_key() -> None:
    stored = SPEC.model_dump(exclude={"samples", "train_stride", "f_llm", "train_dataset", "plugmem_from"})
    before = digest({"protocol": config.PROTOCOL_VERSION, "spec": without_device(stored), "also": []})
    assert CellSpec.model_validate(stored) == SPEC
    assert SPEC.content_hash() == before


def test_what_a_transferred_cell_is_trained_as_is_the_cell_of_that_data_and_backbone() -> None:
    assert SPEC.sources() == ()
    asked = {"test_stride": 3, "drop_last": 32, "samples": 10, "checkpoint": "here", "seed": 4}
    spec = SPEC.model_copy(update=asked | {"train_dataset": "ETTh2+Weather", "plugmem_from": "chronos-2"})
    trained = {"backbone": "chronos-2", "seed": 4}
    assert spec.sources() == (
        SPEC.model_copy(update=trained | {"dataset": "ETTh2"}),
        SPEC.model_copy(update=trained | {"dataset": "Weather"}),
    )
    other_data = SPEC.model_copy(update={"train_dataset": "ETTh2", "checkpoint": "here"})
    assert other_data.sources() == (SPEC.model_copy(update={"dataset": "ETTh2", "checkpoint": "here"}),)


def test_data_sets_that_are_trained_on_together_share_the_bounds() -> None:
    whole = PROFILES["standard"]
    assert whole.share(1) == whole
    changed = {name for name in Profile.model_fields if getattr(whole.share(4), name) != getattr(whole, name)}
    assert changed == {"max_stop_values", "max_knowledge_rows", "max_train_pairs", "max_train_values"}
    assert all(4 * getattr(whole.share(4), name) == getattr(whole, name) for name in changed)


def without_device(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "device"}


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"b": 1, "a": [2, None]}) == digest({"a": [2, None], "b": 1})


@pytest.mark.parametrize("model", [TeacherOptions, TsMemoryOptions])
def test_unknown_fields_are_refused(model: Any) -> None:
    with pytest.raises(ValidationError, match="extra"):
        model(neighbors=20)


def test_unknown_fields_of_a_cell_are_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size"):
        CellSpec.model_validate(SPEC.model_dump() | {"batch_size": 64})


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.horizon = 192  # type: ignore[misc]


@pytest.mark.parametrize(
    "field",
    [
        {"horizon": 0},
        {"lookback": 0},
        {"seed": -1},
        {"test_stride": 0},
        {"drop_last": 0},
        {"samples": 1},
        {"profile": "slow"},
        {"rollout": "sample"},
        {"precision": "fp16"},
    ],
)
def test_values_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        CellSpec.model_validate(SPEC.model_dump() | field)


@pytest.mark.parametrize(
    "field",
    [
        {"pool": 0},
        {"neighbours": 0},
        {"alignment_tail": 0},
        {"temperature": 0.0},
        {"exclusion": "none"},
        {"neighbours": 51},
    ],
)
def test_a_teacher_that_cannot_be_built_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TeacherOptions.model_validate(field)


def test_profiles_grow_from_quick_to_paper() -> None:
    quick, standard, paper = (PROFILES[name] for name in ("quick", "standard", "paper"))
    bounds = [name for name in Profile.model_fields if name.startswith(("max_", "batch_"))]
    assert len(bounds) == 10
    for bound in (*bounds, "eval_every", "patience"):
        assert getattr(quick, bound) <= getattr(standard, bound) <= getattr(paper, bound), bound
    sizes = ["tiny", "small", "base", "large"]
    assert sizes.index(quick.plugmem) <= sizes.index(standard.plugmem) <= sizes.index(paper.plugmem)


def test_a_profile_is_found_by_the_name_it_bears() -> None:
    assert all(profile(name) is PROFILES[name] for name in PROFILES)
    assert all(settings.name == name for name, settings in PROFILES.items())


def test_an_unknown_profile_is_answered_with_all() -> None:
    message = r"^unknown profile 'slow'; choose one of quick, standard, paper$"
    with pytest.raises(TsbenchError, match=message):
        profile("slow")
