"""python -m zoo: list the catalogue, fetch or export models, check them in onnxruntime."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from zoo.model import Model
from zoo.models import MODELS

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Keys = Annotated[list[str] | None, typer.Argument(help="model keys; all when none is given")]


def _chosen(keys: list[str] | None) -> list[Model]:
    unknown = [key for key in keys or () if key not in MODELS]
    if unknown:
        raise typer.BadParameter(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    return [MODELS[key] for key in keys] if keys else list(MODELS.values())


@app.command("list")
def show() -> None:
    """Print the catalogue; nothing is fetched."""
    table = Table("model", "role", "from", "shapes", "note")
    for model in MODELS.values():
        origin = "export (torch)" if model.needs_torch else model.source.pin.name  # type: ignore[union-attr]
        table.add_row(model.key, model.role, origin, ", ".join(s.name for s in model.shapes), model.tolerance.note)
    Console().print(table)


@app.command()
def fetch(keys: Keys = None) -> None:
    """Bring models into the cache and print where they lie."""
    for model in _chosen(keys):
        typer.echo(f"{model.key}\t{model.path()}")


@app.command()
def check(keys: Keys = None, threads: int = 2, rounds: int = 9) -> None:
    """Run models in onnxruntime at every listed shape and print the times."""
    from zoo.check import check as run

    table = Table("model", "nodes", "opset", "shapes", "inputs", "outputs", "onnxruntime ms")
    for model in _chosen(keys):
        for row in run(model, threads=threads, rounds=rounds):
            inputs = " ".join("x".join(map(str, dims)) or "scalar" for dims in row.dims.values())
            outputs = " ".join("x".join(map(str, dims)) for dims in row.outputs.values())
            cells = (row.model, str(row.nodes), str(row.opset), row.shapes, inputs, outputs, f"{row.median_ms:.2f}")
            table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    app()
