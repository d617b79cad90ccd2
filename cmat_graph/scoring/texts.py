"""How like a correction is to the right one: exact match, BLEU-4 (sacrebleu) and ROUGE-1/2/L (rouge-score)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cmat_graph.errors import ConfigurationError, MissingExtraError

try:
    import sacrebleu
    from rouge_score import rouge_scorer
except ImportError as exc:
    raise MissingExtraError.of("metrics", exc) from exc

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """Corrections against the right actions, 0..1."""

    exact: float
    """Share that is equal, whatever its white space."""
    bleu4: float
    """Corpus BLEU-4 of sacrebleu with its `13a` tokens, over 100."""
    rouge1: float
    """Mean F-measure."""
    rouge2: float
    rouge_l: float
    count: int

    def to_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def score_texts(corrections: Sequence[str], right: Sequence[str]) -> TextScore:
    """Compare corrections with the right actions. An empty correction counts, as wrong.

    Raises:
        ConfigurationError: There are not as many corrections as right actions, or none.

    Example:
        >>> score_texts(["wc -l a.txt"], ["wc -l a.txt"]).exact
        1.0

    """
    if len(corrections) != len(right) or not right:
        raise ConfigurationError(f"{len(corrections)} corrections cannot be compared with {len(right)} right actions")
    scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=False)
    rouge = [scorer.score(gold, said) for said, gold in zip(corrections, right, strict=True)]
    means = {name: sum(each[name].fmeasure for each in rouge) / len(rouge) for name in ROUGE}
    return TextScore(
        exact=sum(_folded(a) == _folded(b) for a, b in zip(corrections, right, strict=True)) / len(right),
        bleu4=sacrebleu.corpus_bleu(list(corrections), [list(right)]).score / 100,
        rouge1=means["rouge1"],
        rouge2=means["rouge2"],
        rouge_l=means["rougeL"],
        count=len(right),
    )


def _folded(text: str) -> str:
    return " ".join(text.split())
