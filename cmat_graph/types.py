"""The words of the project as records: what a task, a step, a verdict and an episode are.

Records inside graph state are `TypedDict`s (JSON-shaped, so
that every LangGraph checkpointer can keep them); records outside are frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, runtime_checkable

from typing_extensions import TypedDict  # pydantic refuses typing's own before Python 3.12

Phase = Literal["before", "after"]
Decision = Literal["approve", "revise", "reject"]
StopReason = Literal[
    "running",
    "passed",
    "attempts",
    "rejected",
    "repeated",
    "tokens",
    "seconds",
    "cost",
    "steps",
    "error",
    "ended",
]
"""Why an episode stopped: the checker passed it; attempts used up; the last attempt's action was rejected; an attempt
only repeated an earlier one; a budget is spent; LangGraph's steps ran out; something broke; or it just ended, as a
graph without a checker does. `running` until then."""

Source = Literal["environment", "probes", "model", "human", "reward", "limit"]
Invalid = Literal["", "format", "action"]
"""Why an action could not be carried out at all: the reply holds none that can be read (`format`), or one that is not
allowed here (`action`)."""
Category = Literal[
    "ok", "format", "error", "repetition", "incomplete", "wrong", "unsafe", "role", "unreadable", "budget", "other"
]
"""What a verdict is about: `format` no readable action, `error` it fails, `repetition` nothing new, `incomplete`
no answer in time, `role` the assistant spoke for another, `unreadable` the checker's reply made no sense."""


class ToolCall(TypedDict):
    """One call of a tool that a model asked for."""

    name: str
    args: dict[str, Any]
    id: str


class Message(TypedDict):
    """One chat message, in the field's common shape."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    tool_calls: NotRequired[list[ToolCall]]
    """What an assistant's turn calls; absent when it calls nothing."""
    tool_call_id: NotRequired[str]
    """Which call a tool's message answers."""
    garbled: NotRequired[str]
    """Name of a tool whose call could not be parsed."""
    error: NotRequired[bool]
    """True when it says that something failed; absent otherwise."""
    id: NotRequired[str]
    """Id of the reply that it was."""
    reasoning: NotRequired[str]
    """What the model thought before this reply, where it is to be learned; prompts of the graph never hold it."""


class Verdict(TypedDict):
    """The checker's judgement of one action (before it runs) or of one attempt (after it ran)."""

    phase: Phase
    decision: Decision
    """`approve` lets the action run or the attempt stand; `revise` asks for another; `reject` ends the attempt."""
    passed: bool
    """True for `approve`."""
    score: float
    """How good the work is, 0..1; 1 for an approval and 0 otherwise when the judge gave no number."""
    reason: str
    hint: str
    """What to do instead; empty when there is nothing to say."""
    category: Category
    source: Source
    """Who judged; `limit` means that revisions were used up and the action runs unapproved."""


class Spent(TypedDict):
    """What an episode has used so far."""

    calls: int
    """Model calls."""
    tokens: int
    """Tokens read and written; estimated from the text where a model reports none."""
    seconds: float
    """Time in models, tools and the environment; waiting for a person is free."""
    cost: float
    """US dollars, by the budget's prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one episode may use before it stops with the best attempt so far; None is no limit.

    A call in flight is finished: limits are looked at between calls.

    Example:
        >>> Budget(tokens=20_000, cost=0.05, prices={"gpt-5-mini": (0.25, 2.0)}).tokens
        20000

    """

    tokens: int | None = None
    seconds: float | None = None
    cost: float | None = None
    """US dollars."""
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """US dollars for a million tokens read and written, by model name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the assistant may know about one task. Gold answers never leave the environment."""

    id: str
    prompt: str
    """The task text exactly as the benchmark words it."""
    split: str = ""
    category: str = ""
    """The environment's own grouping for its score, such as `SELECT`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the environment answered to one action."""

    text: str
    error: bool = False
    """True when the environment refused or failed the action."""
    done: bool = False
    """True when the attempt is over: the final answer was given."""
    invalid: Invalid = ""
    """Set where nothing was carried out; some of the published benchmarks end an episode there (`envs.strict`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a read-only probe noticed about an action before it ran."""

    text: str
    hint: str = ""
    certain: bool = True
    """False for a suspicion: the assistant may insist by repeating the action."""
    category: Category = "error"


@runtime_checkable
class Session(Protocol):
    """One task being played: owns the state that actions change."""

    def reset(self) -> None:
        """Put the environment back to the task's start."""

    def step(self, action: str) -> Observation:
        """Carry out one action. A bad action is an observation with `error`, never an exception."""

    def probe(self, action: str) -> Finding | None:
        """Look at an action without carrying it out and without any gold label."""

    def score(self) -> float:
        """Return the reward in 0..1 of what was done since the last `reset`."""

    def close(self) -> None:
        """Give back what the session holds."""


@runtime_checkable
class Placed(Protocol):
    """What a session has besides, where its task plays in a place that is looked at."""

    def intro(self) -> str:
        """Return what stands below the task in every prompt: what is seen when an attempt begins."""

    def view(self) -> str:
        """Return what can be done right now, such as the admissible actions. It stands in the newest turn only."""


class Env(Protocol):
    """A family of tasks over one kind of real environment."""

    name: str
    rules: str
    """What can be done and how actions are written; part of the assistant's system prompt."""
    max_rounds: int
    """Actions allowed in one attempt."""

    def tasks(self, split: str | None = None) -> Sequence[Task]:
        """Return the tasks of one split, or all of them."""

    def open(self, task: Task) -> Session:
        """Start a session for a task."""

    def demonstrations(self) -> Mapping[str, Sequence[str]]:
        """Map each task's prompt to the gold replies that solve it. For the expert teacher only."""

    def metric(self, rewards: Iterable[tuple[Task, float]]) -> dict[str, float]:
        """Return the official score: `main` in 0..1, and one entry per category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model call and what became of it."""

    key: str = ""
    """Id of the call, unique among all."""
    index: int
    attempt: int
    node: str
    messages: list[Message]
    """The exact prompt, oldest first."""
    completion: str
    tool_calls: list[ToolCall] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    """The tools the model could call, in OpenAI's form."""
    before: Verdict | None = None
    """The checker's verdict on the action before it ran."""
    after: Verdict | None = None
    """The checker's verdict on what came of it."""
    observation: str | None = None
    """What the environment answered; None when the action never ran."""
    observation_error: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    model: str = ""
    adapter: str = ""
    """Registry name of the adapter that answered; empty for a bare base model."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the model told about its reply besides: its `reasoning`, how sure it was (`confidence`, and
    `raw_confidence`), and whether a fallback answered in its place (`handed_over`, with the reason)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """A lesson from a failed attempt."""

    text: str
    task: str
    """The prompt of the task that taught it."""
    env: str = ""
    node: str = "assistant"
    attempt: int = 0
    split: str = ""
    """The task's split; what is learned on an evaluation split is never shown for another."""
    episode: str = ""
    model: str = ""
    """Who wrote it: a model's label, or the source of the verdict whose words it is."""
    reward: float | None = None
    """Reward of the failed attempt; None in the middle of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Everything about one task, read back from the trace database."""

    id: str
    env: str
    task: Task
    run: str = ""
    """Free label of the run it belongs to, such as an arm of an evaluation."""
    reward: float | None = None
    """The environment's score; None when the episode did not end."""
    stopped: StopReason = "running"
    attempts: int = 0
    answer: str = ""
    error: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    """Which model played which role, with the version of its prompt."""
    steps: list[Step] = field(default_factory=list)
    reflections: list[Reflection] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    """How the environment's rules word its end, such as "task limit reached"; empty where nobody said."""

    @property
    def solved(self) -> bool:
        """True when the environment gave the full reward."""
        return self.reward is not None and self.reward >= 1.0
