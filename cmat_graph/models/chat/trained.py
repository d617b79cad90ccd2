"""What a card tells about serving: where a whole model lies, and by which template its prompts were rendered."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from cmat_graph.adapters import AdapterCard
from cmat_graph.bases import hash_base, resolve_base
from cmat_graph.errors import AdapterMismatchError

logger = logging.getLogger(__name__)


def whole_model(card: AdapterCard, base: str) -> str:
    """Return the folder of a fully finetuned model, which stands in for its base.

    Raises:
        AdapterMismatchError: It was made of another base than the one that is asked for.

    """
    if base != card.base:
        found = hash_base(resolve_base(base))
        if not found or found != card.base_hash:
            raise AdapterMismatchError(f"{card.id} was trained on {card.base}, not on {base}; load that base")
    return card.folder


def warn_of_template(card: AdapterCard, tokenizer: Any) -> None:
    """Warn where prompts will be rendered by another chat template than the one it was trained by."""
    now = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    if card.template_hash and card.template_hash != now:
        logger.warning(
            "%s was trained with another chat template than this base has now; its prompts are rendered anew, and it "
            "may do worse: take the base it was trained on, or distil it again",
            card.id,
        )
