"""One question, and the formats it is read from. Each format is known by its fields.

    arithmetic        question, answer (a number) [, expression]      Multiagent Debate, Multiagent Finetuning
    gsm8k             question, answer ("... #### 18")                GSM8K
    math              problem, solution | answer [, level, type]      MATH (Hendrycks), MATH-500
    choice            question, choices | options, answer             MMLU, ARC, AQuA
    open              question, answer (any other text)

Further fields of any format: `id`, `split`, `category`.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cmat_graph.answers import answer_kind
from cmat_graph.types import Task

Family = Literal["arithmetic", "gsm8k", "math", "choice", "open"]
KIND_OF: Mapping[Family, str] = {
    "arithmetic": "number",
    "gsm8k": "number",
    "math": "boxed",
    "choice": "letter",
    "open": "text",
}
"""How the final answers of each family are read and compared."""
_MARKER = "####"
_CALCULATOR = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator."""
_LABELLED = re.compile(r"^\(?([A-Za-z])\s*[).:]\s*")
"""How AQuA writes its options: `A)21`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question with its gold answer."""

    id: str
    prompt: str
    """The question's text, with the lettered options where it has some."""
    gold: str
    """The final answer, as `AnswerKind.extract` writes it."""
    family: Family
    split: str
    category: str
    """Groups the score: MATH's level, a subject, else the family."""
    worked: str = ""
    """The gold solution that leads to the answer; empty where the record has none."""
    subject: str = ""
    """MATH's type of problem, such as `Algebra`."""

    @property
    def kind(self) -> str:
        """Name of the kind of its answer."""
        return KIND_OF[self.family]

    @property
    def task(self) -> Task:
        """What the assistant may know."""
        return Task(id=self.id, prompt=self.prompt, split=self.split, category=self.category)


def read_question(record: Mapping[str, Any], *, split: str = "", id: str = "") -> Question:
    """Read one record of any known format.

    Args:
        record: The fields of one line.
        split: The split where the record names none; empty draws it from the question's hash.
        id: The id where the record has none; empty makes one from the question.

    Raises:
        ValueError: A field is missing or the gold answer cannot be read; the message says which.

    """
    if "problem" in record:
        prompt, gold, worked, family = _math(record)
    else:
        prompt = _text(record, "question")
        options = next((record[name] for name in ("choices", "options") if name in record), None)
        if options is not None or isinstance(record["question"], Mapping):
            prompt, gold, worked, family = _choice(record, options)
        else:
            prompt, gold, worked, family = _answered(record, prompt)
    level, subject = (str(record.get(name) or "") for name in ("level", "type" if family == "math" else "subject"))
    if level.isdigit():  # MATH-500 writes 3 for `Level 3`
        level = f"Level {level}"
    return Question(
        id=own_id(record) or id or f"q-{_digest(prompt)[:12]}",
        prompt=prompt,
        gold=gold,
        family=family,
        split=str(record.get("split") or split or split_of(prompt)),
        category=str(record.get("category") or "") or level or (family != "math" and subject) or family,
        worked=worked,
        subject=subject or str(record.get("subject") or ""),
    )


def own_id(record: Mapping[str, Any]) -> str:
    """Return the id that a record brings with it; empty where it has none."""
    return next((str(record[name]) for name in ("id", "unique_id") if record.get(name) not in (None, "")), "")


def split_of(prompt: str) -> str:
    """Put a question on one side for good, by its hash: half of all are `train`, half `test`."""
    return "test" if int(_digest(f"split:{prompt}")[:8], 16) % 2 else "train"


def _math(record: Mapping[str, Any]) -> tuple[str, str, str, Family]:
    worked = str(record.get("solution") or "")
    given = record.get("answer")
    kind = answer_kind("boxed")
    gold = kind.extract(f"\\boxed{{{given}}}") if given not in (None, "") else kind.extract(worked)
    if gold is None:
        raise ValueError("solution: holds no \\boxed{...} with the final answer")
    return _text(record, "problem"), gold, worked, "math"


def _answered(record: Mapping[str, Any], prompt: str) -> tuple[str, str, str, Family]:
    answer = _text(record, "answer")
    number = answer_kind("number")
    if _MARKER in answer:
        worked, _, last = answer.rpartition(_MARKER)
        gold = number.extract(last)
        if gold is None:
            raise ValueError(f"answer: no number follows {_MARKER}")
        return prompt, gold, _CALCULATOR.sub("", worked).strip(), "gsm8k"
    gold = number.extract(answer)
    if gold is not None and number.same(answer, gold):
        expression = str(record.get("expression") or "")
        return prompt, gold, f"{expression} = {gold}" if expression else "", "arithmetic"
    text = answer_kind("text").extract(answer)
    if text is None:
        raise ValueError("answer: is empty")
    return prompt, text, "", "open"


def _choice(record: Mapping[str, Any], options: Any) -> tuple[str, str, str, Family]:
    asked = record["question"]
    if isinstance(asked, Mapping):  # ARC's own files
        asked, options = asked.get("stem", ""), asked.get("choices", options)
    labels, texts = _options(options)
    answer = next(
        (record[name] for name in ("answer", "answerKey", "answer_index", "correct", "label") if name in record), None
    )
    gold = _index(answer, labels, texts)
    letters = string.ascii_uppercase[: len(texts)]
    lines = [str(asked).strip(), *(f"({letter}) {text}" for letter, text in zip(letters, texts, strict=True))]
    return "\n".join(lines), letters[gold], str(record.get("rationale") or ""), "choice"


def _options(options: Any) -> tuple[list[str], list[str]]:
    """Return the labels that a record gives its options, and their texts."""
    if isinstance(options, Mapping) and isinstance(options.get("text"), Sequence) and "label" in options:
        labels, texts = list(options["label"]), list(options["text"])
    elif isinstance(options, Mapping):
        labels, texts = list(options), list(options.values())
    elif isinstance(options, Sequence) and options and all(isinstance(each, Mapping) for each in options):
        labels, texts = [each.get("label", "") for each in options], [each.get("text", "") for each in options]
    elif isinstance(options, Sequence) and not isinstance(options, str):
        found = [_LABELLED.match(str(each)) for each in options]
        marks = [each.group(1).upper() for each in found if each]
        labelled = marks == list(string.ascii_uppercase[: len(options)])
        labels = list(string.ascii_uppercase[: len(options)])
        texts = [_LABELLED.sub("", str(each)) if labelled else each for each in options]
    else:
        raise ValueError("choices: should be a list of texts, or letters with texts")
    if not 2 <= len(texts) <= len(string.ascii_uppercase) or len(labels) != len(texts):
        raise ValueError("choices: should be 2 to 26 options")
    return [str(label).strip() for label in labels], [str(text).strip() for text in texts]


def _index(answer: Any, labels: list[str], texts: list[str]) -> int:
    """Return which option is right: by its index from 0, its label, its letter or its text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(texts):
        return answer
    if isinstance(answer, str):
        said = answer.strip()
        for names in (labels, list(string.ascii_uppercase[: len(texts)]), texts):
            if said in names or said.upper() in names:
                return names.index(said if said in names else said.upper())
        if said.isascii() and said.isdigit() and int(said[:3]) < len(texts):
            return int(said[:3])
    raise ValueError(f"answer: {answer!r} is none of the {len(texts)} options")


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if isinstance(value, bool) or value is None or not str(value).strip():
        raise ValueError(f"{name}: is missing or empty")
    return str(value).strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
