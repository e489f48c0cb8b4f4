"""Which rows train, which validate and which test, and the scaling fitted on the train rows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsbench.errors import TsbenchError


@dataclass(frozen=True)
class SplitRule:
    """How many rows each split gets.

    Attributes:
        kind: "rows" for absolute counts from row 0 on, rows after them unused (ETT: 12/4/4 months of 30
            days); "ratio" for shares of all rows.
        train: Rows or share of the train split.
        val: Rows or share of the validation split. By ratio it takes what the other two leave.
        test: Rows or share of the test split.

    Raises:
        TsbenchError: A part is not positive, a row count is not whole, or the shares do not sum to 1.
    """

    kind: Literal["rows", "ratio"]
    train: float
    val: float
    test: float

    def __post_init__(self) -> None:
        parts = (self.train, self.val, self.test)
        text = ",".join(f"{part:g}" for part in parts)
        if not all(part > 0 for part in parts):
            raise TsbenchError(
                f"split {text} has an empty part; give train, val and test a positive size each"
            )
        if self.kind == "ratio" and abs(sum(parts) - 1) > 1e-9:
            raise TsbenchError(
                f"split {text} sums to {sum(parts):g}; shares must sum to 1, such as 0.7,0.1,0.2"
            )
        if self.kind == "rows" and any(part != int(part) for part in parts):
            raise TsbenchError(f"split {text} is not in whole rows; use counts such as 8640,2880,2880")


@dataclass(frozen=True)
class Borders:
    """Row ranges [from, to) of the three splits, adjacent and in time order."""

    train: tuple[int, int]
    val: tuple[int, int]
    test: tuple[int, int]


def parse_split(text: str) -> SplitRule:
    """Read "0.7,0.1,0.2" (shares) or "8640,2880,2880" (row counts).

    Raises:
        TsbenchError: The text is not three numbers, or they make no valid rule.
    """
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise TsbenchError(
            f"split '{text}' is not three numbers; "
            "use shares such as 0.7,0.1,0.2 or rows such as 8640,2880,2880"
        ) from None
    return SplitRule("ratio" if max(train, val, test) < 1 else "rows", train, val, test)


def split_borders(rule: SplitRule, n_rows: int) -> Borders:
    """Row ranges of the splits of `n_rows` rows.

    By ratio: train = int(train · n), test = int(test · n), validation = the rest, in this order in time.

    Raises:
        TsbenchError: The rows do not suffice for the rule.

    Source: the loaders of Informer and Time-Series-Library, which the literature's tables rest on.
    """
    if rule.kind == "rows":
        train, val, test = int(rule.train), int(rule.val), int(rule.test)
    else:
        train, test = int(n_rows * rule.train), int(n_rows * rule.test)
        val = n_rows - train - test
    if min(train, val, test) < 1 or train + val + test > n_rows:
        raise TsbenchError(
            f"{n_rows} rows do not suffice for the split {rule.train:g},{rule.val:g},{rule.test:g}; "
            "use a longer series or another split"
        )
    return Borders((0, train), (train, train + val), (train + val, train + val + test))


@dataclass(frozen=True)
class Scaler:
    """Standardisation per channel with statistics of the train rows only.

    z = (x - mean) / std, with the biased standard deviation (ddof 0); a constant channel is divided by 1.

    Attributes:
        mean: [C] float64 in data units.
        std: [C] float64 in data units, positive.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @staticmethod
    def fit(values: NDArray[np.float64]) -> "Scaler":
        """Take mean and std of the train rows `values` [T_train, C]."""
        constant = values.max(axis=0) == values.min(axis=0)
        return Scaler(
            mean=np.asarray(values.mean(axis=0), dtype=np.float64),
            std=np.where(constant, 1.0, values.std(axis=0)),
        )

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Standardise `values` [T, C]; computed in float64.

        Returns:
            [T, C] float32, each channel contiguous in memory (Fortran order), so that cutting windows of
            one channel reads adjacent bytes.
        """
        scaled = (values - self.mean) / self.std
        return np.asfortranarray(scaled, dtype=np.float32)

    def inverse(self, scaled: NDArray[np.floating]) -> NDArray[np.float64]:
        """Bring standardised values [..., C] back to data units, float64."""
        return np.asarray(scaled * self.std + self.mean, dtype=np.float64)
