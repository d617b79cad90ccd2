"""Why episodes failed: each failed one gets the tags of the paper's error analysis.

Rules over what was recorded; no model is asked. They look at the assistant's replies of the last attempt: what it had
come to when the episode ended. Which actions an environment understands is left to the environment: here an action is
known by its form (`Action:`, a code block, a tool call) and by what came of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from cmat_graph.types import Episode, Step, ToolCall, Verdict

Tag = Literal[
    "broken",
    "budget",
    "ok_only",
    "shallow_confirmation",
    "guess",
    "bad_format",
    "out_of_role",
    "repetition",
    "environment_error",
    "misread",
    "no_analysis",
    "other",
]

_BUDGETS = ("tokens", "seconds", "cost", "steps")
_ROUNDS = "No answer within the allowed rounds."
_MARKER = re.compile(r"\b(?:action|act)\s*:|<tool_call>|```", re.IGNORECASE)
_THOUGHTLESS = re.compile(r"\s*(?:(?:thought|think)\s*:)?\s*(?:(?:action|act)\s*:|<tool_call>|```|$)", re.IGNORECASE)
_FINAL = re.compile(r"final answer:", re.IGNORECASE)
_READING = re.compile(r"\w*\s*\(?\s*(?:SELECT|SHOW|DESC|DESCRIBE|EXPLAIN|VALUES|WITH)\b", re.IGNORECASE)
_LOOKING = re.compile(
    r"\": \"\s*SELECT\b|\"name\": \"(?:get|list|read|search|find|show|describe|fetch)[_\"]", re.IGNORECASE
)
_IN_VAIN = re.compile(r"\b0 rows? (?:changed|affected)|nothing happen(?:s|ed)", re.IGNORECASE)

# Matched against `_words`: small letters, no punctuation.
_OK = r"ok|okay|sure|done|certainly|of course|got it|understood|i understand|alright|all right|will do|no problem|noted"
_ACKNOWLEDGEMENT = re.compile(rf"(?:thought )?(?:yes )?(?:{_OK})(?: (?:{_OK}|i(?: wi|')ll do (?:it|that|so)))*")
_DONE = r"done|completed?|finished|executed|made|updated|inserted|added|deleted|removed|changed|modified|created|booked"
_SUCCESS = re.compile(rf"(?:ok|okay|success|successful|successfully|{_DONE})(?: successfully)?")
_CLAIM = re.compile(
    rf"\b(?:has|have|was|were|is|are|i|i've|we|we've)(?: (?:been|now|already|just|successfully))* (?:{_DONE})\b"
    r"|(?<!not )\bsuccessful(?:ly)?\b"
)
_DENIAL = re.compile(r"\b(?:nothing|none|no \w+) (?:has|have|was|were|is|are)\b")


def diagnose(episode: Episode) -> tuple[Tag, ...]:
    """Say why an episode failed: all tags that fit, the most telling first.

    None fits one that is solved or still runs, or that nobody scored after its checker let it pass.

    Example:
        >>> from cmat_graph.types import Task
        >>> task = Task(id="1", prompt="Rename the row.")
        >>> step = Step(index=0, attempt=1, node="assistant", messages=[], completion="Sure.")
        >>> diagnose(Episode(id="e", env="database", task=task, reward=0.0, stopped="attempts", steps=[step]))
        ('ok_only',)

    """
    unscored = episode.reward is None and episode.stopped in ("running", "passed")
    if episode.solved or unscored:
        return ()
    replies = _last_attempt(episode)
    return tuple(tag for tag, fits in _RULES.items() if fits(episode, replies)) or ("other",)


def count_tags(episodes: Iterable[Episode]) -> dict[str, int]:
    """Count the failed episodes that carry each tag; one episode may carry several."""
    counts = Counter(tag for episode in episodes for tag in diagnose(episode))
    return {tag: counts[tag] for tag in (*_RULES, "other") if counts[tag]}


# -- the rules ------------------------------------------------------------------------------------------------------


def _broken(episode: Episode, replies: list[Step]) -> bool:
    """`broken`: a model or a task failed, and the episode broke off with an error."""
    return episode.stopped == "error"


def _budget(episode: Episode, replies: list[Step]) -> bool:
    """`budget`: tokens, seconds, money, steps or the allowed rounds were used up."""
    return episode.stopped in _BUDGETS or any(_says(step, "budget", _ROUNDS) for step in replies)


def _ok_only(episode: Episode, replies: list[Step]) -> bool:
    """`ok_only`: a reply is a bare acknowledgement ("OK", "Sure", "Done.") and holds no action."""
    return any(_acknowledges(step) for step in replies)


def _shallow_confirmation(episode: Episode, replies: list[Step]) -> bool:
    """`shallow_confirmation`: it claims success although no action succeeded that could have brought it.

    After looks alone the answer itself must claim it: its thought may well speak of what was changed long ago.
    """
    ran = [step for step in replies if _ran(step)]
    if any(not _looks(step) and not _IN_VAIN.search(step.observation or "") for step in ran):
        return False
    said = [step for step in replies if not _acts(step) and not _acknowledges(step)]
    return any(_claims(_answer(step) if ran else step.completion) for step in said)


def _guess(episode: Episode, replies: list[Step]) -> bool:
    """`guess`: where actions can be run, it answered without having run any, and claimed nothing."""
    if not _answered(episode, replies) or any(_acts(step) and step.observation is not None for step in replies):
        return False
    return bool(_MARKER.search(replies[-1].completion)) and not _shallow_confirmation(episode, replies)


def _bad_format(episode: Episode, replies: list[Step]) -> bool:
    """`bad_format`: a reply holds no action that could be read."""
    return any(_formless(step) for step in replies)


def _out_of_role(episode: Episode, replies: list[Step]) -> bool:
    """`out_of_role`: the assistant wrote the turn of another, such as the environment's answer."""
    return any(_says(step, "role") for step in replies)


def _repetition(episode: Episode, replies: list[Step]) -> bool:
    """`repetition`: the same action with the same result, the same error twice, or the attempt before once more."""
    if episode.stopped == "repeated" or any(_says(step, "repetition", "Nothing new", "Repeated") for step in replies):
        return True
    seen = [(_action(step), _result(step)) for step in replies]
    errors = [step.observation for step in replies if step.observation_error]
    before = _last_attempt(episode, before=replies[0].attempt) if replies else []
    again = [_action(step) for step in before] == [_action(step) for step in replies] != []
    return again or len(set(seen)) < len(seen) or len(set(errors)) < len(errors)


def _environment_error(episode: Episode, replies: list[Step]) -> bool:
    """`environment_error`: an action failed in the environment, and no later one succeeded."""
    ran = [step for step in replies if _acts(step) and step.observation is not None]
    return bool(ran) and ran[-1].observation_error


def _misread(episode: Episode, replies: list[Step]) -> bool:
    """`misread`: no action failed, an answer came in good form, and its reward says that it is wrong."""
    if episode.reward is None or not _answered(episode, replies):
        return False
    excuses = (_broken, _budget, _shallow_confirmation, _guess, _environment_error)
    return not any(fits(episode, replies) for fits in excuses)


def _no_analysis(episode: Episode, replies: list[Step]) -> bool:
    """`no_analysis`: a reply acts with no thought before its action, or calls a tool without a word."""
    acting = [step for step in replies if _acts(step) or _MARKER.search(step.completion)]
    return any(_THOUGHTLESS.match(step.completion) for step in acting)


_RULES: dict[Tag, Callable[[Episode, list[Step]], bool]] = {
    "broken": _broken,
    "budget": _budget,
    "ok_only": _ok_only,
    "shallow_confirmation": _shallow_confirmation,
    "guess": _guess,
    "bad_format": _bad_format,
    "out_of_role": _out_of_role,
    "repetition": _repetition,
    "environment_error": _environment_error,
    "misread": _misread,
    "no_analysis": _no_analysis,
}
"""The most telling first. `other` is what none of them explains."""


# -- what a reply is ------------------------------------------------------------------------------------------------


def _last_attempt(episode: Episode, *, before: int | None = None) -> list[Step]:
    """Return the assistant's replies of the last attempt, or of the last one before another."""
    replies = [s for s in episode.steps if s.node == "assistant" and (before is None or s.attempt < before)]
    return [step for step in replies if step.attempt == replies[-1].attempt]


def _answered(episode: Episode, replies: list[Step]) -> bool:
    """Tell whether the last reply left an answer, and not by mere acknowledgement."""
    return bool(episode.answer and replies) and not (_formless(replies[-1]) or _acknowledges(replies[-1]))


def _acts(step: Step) -> bool:
    """Tell whether a reply does something, rather than only say something."""
    if _formless(step) or _FINAL.search(step.completion):
        return False
    return bool(step.tool_calls or _MARKER.search(step.completion) or step.observation)


def _ran(step: Step) -> bool:
    return _acts(step) and step.observation is not None and not step.observation_error


def _looks(step: Step) -> bool:
    """Tell whether an action only looks: its SQL reads, or its tools are named for it."""
    if step.tool_calls:
        return all(_LOOKING.search(_written(call)) for call in step.tool_calls)
    return _READING.match(step.completion.partition("```")[2]) is not None


def _formless(step: Step) -> bool:
    if step.observation_error and "no action" in (step.observation or "").lower():
        return True
    return _says(step, "format", "The reply holds no action", "Repeated in spite of: The reply holds no action")


def _says(step: Step, category: str, *reasons: str) -> bool:
    """Tell whether a verdict on a reply is of a category; records from before there were any have only the reason."""
    return any(_is(verdict, category, reasons) for verdict in (step.before, step.after) if verdict is not None)


def _is(verdict: Verdict, category: str, reasons: tuple[str, ...]) -> bool:
    # People and models word their reasons freely, so only those of the environment and the probes can be read.
    worded = verdict["source"] not in ("model", "human") and verdict["reason"].startswith(reasons)
    return worded or verdict.get("category") == category


def _acknowledges(step: Step) -> bool:
    return _ACKNOWLEDGEMENT.fullmatch(_words(step.completion)) is not None


def _claims(text: str) -> bool:
    words = _words(text)
    return bool(_SUCCESS.fullmatch(words) or (_CLAIM.search(words) and not _DENIAL.search(words)))


def _answer(step: Step) -> str:
    return _FINAL.split(step.completion)[-1]


def _action(step: Step) -> str:
    """Return a reply without its thought: the same action may be thought of in other words."""
    calls = [_written(call) for call in step.tool_calls]
    found = _MARKER.search(step.completion)
    said = step.completion[found.start() if found else 0 :] if found or not calls else ""
    return " ".join([*said.split(), *calls])


def _written(call: ToolCall) -> str:
    return json.dumps({"name": call["name"], "args": call["args"]}, sort_keys=True)


def _result(step: Step) -> str:
    """Return what came of a reply: the environment's answer, or why the checker sent it back."""
    if step.observation is not None or step.before is None:
        return step.observation or ""
    return step.before["reason"]


def _words(text: str) -> str:
    return re.sub(r"[^\w']+", " ", text.replace("’", "'").casefold()).strip()
