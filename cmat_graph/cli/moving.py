"""`cmat-graph adapters merge` and `export`: take an adapter elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from cmat_graph.adapters import AdapterRegistry

_ROOT = click.option("--adapters", "root", default="adapters", show_default=True, help="Adapter registry.")
_BASE = click.option("--base", help="Where its base lies now, if that is not what the card says.")


@click.command("merge")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@_ROOT
@_BASE
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto")
def merge_command(*, name: str, folder: Path, root: str, base: str | None, dtype: str) -> None:
    """Merge an adapter into its base, and write both as one Hugging Face FOLDER.

    \b
    Example:
      cmat-graph adapters merge assistant merged/
    """
    from cmat_graph.tuning.merging import merge

    done = merge(AdapterRegistry(root).get(name), folder, base=base, dtype=dtype)
    click.echo(f"written: {done}; it is a base like any other: cmat-graph run --assistant {done}")


@click.command("export")
@click.argument("names", nargs=-1, required=True)
@_ROOT
@_BASE
@click.option("--gguf", type=click.Path(path_type=Path), help="Write this GGUF file, by llama.cpp's own converter.")
@click.option("--outtype", default="f16", show_default=True, help="Of the GGUF file: f32, f16, bf16, q8_0, auto.")
@click.option("--converter", help="llama.cpp's convert_hf_to_gguf.py; else it is looked for.")
def export_command(
    *, names: tuple[str, ...], root: str, base: str | None, gguf: Path | None, outtype: str, converter: str | None
) -> None:
    """Print the line that serves adapters with vLLM, or write one as a GGUF file.

    \b
    Examples:
      cmat-graph adapters export assistant checker
      cmat-graph adapters export assistant --gguf assistant.gguf --outtype q8_0
    """
    from cmat_graph.errors import ConfigurationError
    from cmat_graph.tuning.exporting import export_gguf, vllm_line

    cards = [AdapterRegistry(root).get(name) for name in names]
    if gguf is None:
        click.echo(vllm_line(cards, base=base))
        return
    if len(cards) > 1:
        raise ConfigurationError("a GGUF file holds one model; export one adapter at a time")
    click.echo(f"written: {export_gguf(cards[0], gguf, base=base, outtype=outtype, converter=converter)}")
