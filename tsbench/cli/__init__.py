"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tsbench.errors import TsbenchError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED_CELL = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class Command(TyperCommand):
    """A command whose repeatable options also take several values: ``--horizon 96 192``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option's name before each further value."""
        repeatable = {
            name for param in self.params if getattr(param, "multiple", False) for name in param.opts
        }
        return super().parse_args(ctx, spread_values(args, repeatable))


class Commands(TyperGroup):
    """The command group; it turns expected errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; bad input exits with 2, an interrupt with 130."""
        try:
            return super().invoke(ctx)
        except TsbenchError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            for line in str(error).splitlines():
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to continue", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


def spread_values(args: list[str], repeatable: set[str]) -> list[str]:
    """Rewrite ``--horizon 96 192`` as ``--horizon 96 --horizon 192`` for the options in `repeatable`."""
    spread: list[str] = []
    option, values = "", 0
    for arg in args:
        if arg.startswith("-"):
            option, values = (arg if arg in repeatable else ""), 0
        elif option:
            values += 1
            if values > 1:
                spread.append(option)
        spread.append(arg)
    return spread


app = typer.Typer(
    name="tsbench",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Benchmark time-series foundation models and the ways to adapt them: leak-free, on real data, "
    "with coverage and provenance on every figure.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tsbench {version('tsbench')}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that every command has."""


def table_console() -> "Console":
    """Standard output; 200 columns wide where it is no terminal, so that no cell is folded in a file."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def main() -> None:
    """Entry point of the console script."""
    from tsbench.cli import audit, bench, data, figures, latency, page, pretrain, report  # registers them

    assert audit and bench and data and figures and latency and page and pretrain and report
    sys.exit(app(standalone_mode=True))
