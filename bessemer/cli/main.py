"""The `bessemer` command: one verb per file of `bessemer.cli.verbs`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from bessemer import __version__
from bessemer.cli.report import fail
from bessemer.cli.verbs import bench, build, cache, compare, diff, inspect, run
from bessemer.core.errors import BessemerError
from bessemer.core.files import NO_ROOM

app = typer.Typer(
    name="bessemer", help="Compile trained models into engines, run, measure and look into them.", no_args_is_help=True,
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
for verb in (build, run, bench, inspect, compare, diff):
    app.command(verb.NAME)(verb.command)
app.add_typer(cache.app, name="cache")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"bessemer {__version__}")
        raise typer.Exit()


def main() -> None:
    """Entry point: errors are printed as what, where and fix, and end with status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what a terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BessemerError as error:
        fail(error)
        sys.exit(1)
    except OSError as error:  # a file that a command was given, or what it writes to
        where = f": {error.filename}" if error.filename is not None else ""
        fix = "check the path and its permissions" if where else "write elsewhere"
        if error.errno in NO_ROOM:
            fix = "free space where it writes, or write elsewhere"
        fail(BessemerError(f"{error.strerror or error}{where}", fix=fix))
        sys.exit(1)


if __name__ == "__main__":
    main()
