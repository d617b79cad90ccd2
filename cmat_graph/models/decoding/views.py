"""What each token may look at: masks for full and for sliding attention, by the model's own kinds of layers."""

from __future__ import annotations

from typing import Any

import torch

from cmat_graph.errors import ModelNotFoundError

FULL, SLIDING = "full_attention", "sliding_attention"


class Views:
    """Make the masks of one model.

    Raises:
        ModelNotFoundError: Some of its layers keep no keys and values, so that rows could not join and leave.

    """

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config(decoder=True)
        self._dtype = model.dtype
        uses_window = getattr(config, "use_sliding_window", True)
        self._window = int((getattr(config, "sliding_window", None) if uses_window else None) or 0)
        kinds = set(getattr(config, "layer_types", None) or ())
        if others := kinds - {FULL, SLIDING}:
            raise ModelNotFoundError(
                f"{config.model_type} has layers of kind {', '.join(sorted(others))}, which the engine does not batch; "
                "take a model with plain attention, or serve this one with vLLM"
            )
        self._kinds = kinds or {SLIDING if self._window else FULL}

    def of(self, columns: torch.Tensor, extent: int) -> Any:
        """Return the mask for tokens at these columns [rows, tokens] over the first `extent` columns.

        It is added to the scores: 0 where a token may look, the least number elsewhere. Boolean masks would be turned
        into such ones in every layer.
        """
        if columns.numel() == 1 and self._kinds == {FULL}:
            return torch.zeros(1, 1, 1, extent, dtype=self._dtype, device=columns.device)
        behind = columns[:, :, None] - torch.arange(extent, device=columns.device)
        masks = {FULL: behind < 0}
        if SLIDING in self._kinds:
            masks[SLIDING] = masks[FULL] | (behind >= self._window)
        made = {
            kind: torch.zeros(hidden.shape, dtype=self._dtype, device=columns.device).masked_fill_(
                hidden, torch.finfo(self._dtype).min
            )[:, None]
            for kind, hidden in masks.items()
        }
        # Models with both kinds of layers take a mask for each; those with one kind take the mask itself.
        return made if len(self._kinds) > 1 else made[next(iter(self._kinds))]
