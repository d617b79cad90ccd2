"""How an episode ended, in AgentBench's words; and sessions around sessions, which tell."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

from cmat_graph.types import Finding, Observation, Placed, Session, StopReason

Status = Literal[
    "completed",
    "agent context limit",
    "agent validation failed",
    "agent invalid action",
    "task limit reached",
    "task error",
    "unknown",
]
"""AgentBench v0.2's statuses of a finished sample."""
STATUSES: tuple[Status, ...] = get_args(Status)
_LIMITS = ("tokens", "seconds", "cost", "steps", "attempts", "repeated")
_OF_ENVIRONMENT = ("EnvironmentFailure", "TaskFileError")


class Wrapped:
    """A session around another that passes everything on."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def reset(self) -> None:
        """Put the environment back to the task's start."""
        self.session.reset()

    def step(self, action: str) -> Observation:
        """Carry out one action."""
        return self.session.step(action)

    def probe(self, action: str) -> Finding | None:
        """Look at an action without carrying it out."""
        return self.session.probe(action)

    def score(self) -> float:
        """Return the reward of what was done since the last `reset`."""
        return self.session.score()

    def close(self) -> None:
        """Give back what the session holds."""
        self.session.close()


W = TypeVar("W", bound=Wrapped)


def wrap(session: Session, kind: type[W]) -> W:
    """Put a session into a wrapper; it is `Placed` where the session is, and only there."""
    if not isinstance(session, Placed):
        return kind(session)
    place: Placed = session

    def intro(self: Wrapped) -> str:
        return place.intro()

    def view(self: Wrapped) -> str:
        return place.view()

    placed: type[W] = type(kind.__name__, (kind,), {"intro": intro, "view": view})
    return placed(session)


class Watched(Wrapped):
    """A session that remembers how its attempt went."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.rounds = 0
        """Actions since the last `reset`."""
        self.last: Observation | None = None
        """What the last of them gave."""

    def reset(self) -> None:
        """Begin an attempt."""
        self.rounds, self.last = 0, None
        super().reset()

    def step(self, action: str) -> Observation:
        """Carry out one action, and remember it."""
        self.rounds += 1
        self.last = super().step(action)
        return self.last


def worded(status: str) -> Status:
    """Read a status back; what was recorded without one is unknown."""
    return next((each for each in STATUSES if each == status), "unknown")


def status_of(
    stopped: StopReason, *, last: Observation | None = None, rounds: int = 0, max_rounds: int = 0, error: str = ""
) -> Status:
    """Word how an episode ended.

    Args:
        stopped: Why the graph stopped.
        last: What the last action of the attempt that counts gave; None where there was none.
        rounds: How many actions it had.
        max_rounds: How many it could have had.
        error: What broke, where something did: the error's class, a colon, its message.

    """
    if stopped == "error":
        kind = error.partition(":")[0]
        return (
            "agent context limit"
            if kind == "PromptTooLongError"
            else ("task error" if kind in _OF_ENVIRONMENT else "unknown")
        )
    used_up = bool(max_rounds) and rounds >= max_rounds
    if last is not None and last.invalid and (last.done or not used_up):
        return "agent validation failed" if last.invalid == "format" else "agent invalid action"
    if last is not None and last.done:
        return "completed"
    if stopped == "rejected":  # the checker did not let it run
        return "agent invalid action"
    if stopped in _LIMITS or used_up:
        return "task limit reached"
    return "unknown"
