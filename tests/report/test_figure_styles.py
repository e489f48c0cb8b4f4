"""What tells lines and points of a figure apart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tsbench.report.figures.canvas import COLOURS, DASHES, line_styles
from tsbench.report.figures.costs import Point, point_styles

LABELS = st.builds(
    "{}{}".format,
    st.sampled_from(["Origin", "TS-Memory", "RAFT", "Repeat last", "DLinear", "PatchTST"]) | st.text("abc"),
    st.sampled_from(["", ", no-gate", ", PlugMem tiny", " (expand roll-out)"]) | st.text(", xyz", min_size=1),
)
PAIRS = len(COLOURS) * len(DASHES)


@settings(derandomize=True)
@given(st.lists(LABELS, unique=True, max_size=PAIRS))
def test_no_two_labels_have_colour_and_dashes_in_common(labels: list[str]) -> None:
    styles = line_styles(labels)
    assert set(styles) == set(labels)
    assert len({tuple(style.values()) for style in styles.values()}) == len(labels)


@settings(derandomize=True)
@given(st.lists(LABELS, unique=True, min_size=1), st.permutations(["Origin", "TS-Memory", "RAFT", "LoRA"]))
def test_the_first_of_a_usual_method_is_solid_in_its_own_colour(others: list[str], usual: list[str]) -> None:
    alone = {label: line_styles([label])[label] for label in usual}
    styles = line_styles([*usual, *others])
    assert {label: styles[label] for label in usual} == alone
    assert {style["linestyle"] for style in alone.values()} == {"-"}


def test_more_labels_than_pairs_still_have_styles() -> None:
    assert len(line_styles(f"method{number}" for number in range(2 * PAIRS + 1))) == 2 * PAIRS + 1


@settings(derandomize=True)
@given(st.lists(LABELS, unique=True, max_size=12), st.integers(1, 3))
def test_no_two_points_have_colour_and_marker_in_common(labels: list[str], backbones: int) -> None:
    points = [
        Point(label, f"b{place}", 1, 1, 1, 1)
        for place in range(backbones)
        for label in labels[: len(labels) - place]
    ]
    styles = point_styles(points)
    assert len({tuple(style.values()) for style in styles.values()}) == len(points)
