"""Gathering a user's mistakes, so that all of them are shown at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from tsbench.errors import TsbenchError


class Mistakes:
    """The distinct mistakes found so far, in the order they were found."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the error that ends the block, if it is the user's, and go on after the block."""
        try:
            yield
        except TsbenchError as error:
            self._lines |= dict.fromkeys(str(error).splitlines())
        except ValidationError as error:
            for mistake in error.errors():
                where = ".".join(str(part) for part in mistake["loc"])
                said = f"{where} is {mistake['input']!r}: {mistake['msg'].lower()}; give another value"
                self._lines[said] = None

    def raise_any(self) -> None:
        """Report what was noted.

        Raises:
            TsbenchError: One line per mistake; nothing is raised where there is none.
        """
        if self._lines:
            raise TsbenchError("\n".join(self._lines))
