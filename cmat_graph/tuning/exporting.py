"""Take an adapter elsewhere: a GGUF file through llama.cpp's own converter, or the line that serves it with vLLM."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from cmat_graph.adapters import CONFIG, AdapterCard
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, UnsupportedAdapterError
from cmat_graph.tuning.merging import MERGEABLE, locate_base, merge

CONVERTER = "convert_hf_to_gguf.py"
"""llama.cpp's converter, on the PATH or in the folder that `LLAMA_CPP` names."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank`."""


def export_gguf(
    card: AdapterCard,
    target: str | Path,
    *,
    base: str | None = None,
    outtype: str = "f16",
    converter: str | Path | None = None,
) -> Path:
    """Merge an adapter and write it as a GGUF file.

    Args:
        card: The adapter.
        target: The file to write.
        base: Where its base lies now, if that is not what the card says.
        outtype: The converter's `--outtype`: `f32`, `f16`, `bf16`, `q8_0` or `auto`.
        converter: llama.cpp's `convert_hf_to_gguf.py`; None looks for it.

    Returns:
        The file.

    Raises:
        ConfigurationError: There is no converter, or it failed; the message says how.

    """
    script = find_converter(converter)
    file = Path(target)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{uuid.uuid4().hex[:8]}-{file.name}")
    with tempfile.TemporaryDirectory(prefix="cmat-export-") as scratch:
        merged = merge(card, Path(scratch) / card.name, base=base)
        command = [sys.executable, str(script), str(merged), "--outfile", str(aside), "--outtype", outtype]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not aside.is_file():
                told = (done.stderr.strip() or done.stdout.strip() or "it wrote nothing").splitlines()[-1]
                raise ConfigurationError(
                    f"{script} could not convert {card.id}: {told}; its own requirements.txt says what it needs, and "
                    "llama.cpp which architectures it knows"
                )
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
    return file


def find_converter(given: str | Path | None = None) -> Path:
    """Find llama.cpp's converter.

    Raises:
        ConfigurationError: It is nowhere.

    """
    places = [Path(given)] if given else []
    if not given and (home := os.environ.get("LLAMA_CPP")):
        places.append(Path(home) / CONVERTER)
    if not given and (found := shutil.which(CONVERTER)):
        places.append(Path(found))
    for place in places:
        script = place / CONVERTER if place.is_dir() else place
        if script.is_file():
            return script
    raise ConfigurationError(
        f"no {CONVERTER} {f'at {given}' if given else 'on the PATH or in $LLAMA_CPP'}; get llama.cpp "
        "(https://github.com/ggml-org/llama.cpp), install its requirements, and set LLAMA_CPP to its folder"
    )


def vllm_line(cards: Sequence[AdapterCard], *, base: str | None = None) -> str:
    """Return the command that serves adapters of one base with vLLM, each under its node's name.

    Args:
        cards: The adapters.
        base: Where the base lies on that machine, if that is not what the cards say.

    Raises:
        ConfigurationError: They have several bases.
        ModelNotFoundError: Their base is not where it was; give `base`.
        UnsupportedAdapterError: One is of a kind that vLLM does not serve as a LoRA module.

    Example:
        >>> vllm_line([AdapterCard(name="one", node="assistant", base="org/model", method="full", folder="/a/one")])
        'vllm serve /a/one --served-model-name assistant'

    """
    first = cards[0]
    if len(cards) == 1 and first.is_full:
        return f"vllm serve {shlex.quote(first.folder)} --served-model-name {first.node}"
    if len({card.base_hash or card.base for card in cards}) > 1:
        raise ConfigurationError(
            f"{', '.join(card.id for card in cards)} have several bases; serve those of one at a time"
        )
    for card in cards:
        if card.method not in MERGEABLE or card.method == "dora":
            raise UnsupportedAdapterError(
                f"vLLM serves no {card.method} as an adapter ({card.id}); "
                + ("merge it and serve the folder" if card.method == "dora" else "serve it with: cmat-graph serve")
            )
    rank = max(_rank(card) for card in cards)
    words = ["vllm", "serve", locate_base(first, base or first.base), "--enable-lora", "--max-loras", str(len(cards))]
    words += ["--max-lora-rank", str(next((size for size in VLLM_RANKS if size >= rank), rank))]
    names = [card.node if [c.node for c in cards].count(card.node) == 1 else card.id for card in cards]
    words += ["--lora-modules", *(f"{name}={card.folder}" for name, card in zip(names, cards, strict=True))]
    return shlex.join(words)


def _rank(card: AdapterCard) -> int:
    try:
        config = json.loads(Path(card.folder, CONFIG).read_text(encoding="utf-8"))
        return max(int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values()), 1)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise AdapterNotFoundError(f"cannot read {CONFIG} of {card.id}: {exc}; restore its files") from exc
