"""What a forked child does; in a module of its own, so that it can be sent there."""

from cmat_graph.errors import EngineError
from cmat_graph.models.engine import shared_engine


def error_of_loading_in_a_child(base: str) -> str:
    try:
        shared_engine(base)
    except EngineError as exc:
        return str(exc)
    return ""


def error_in_a_child(prompt: list[int]) -> str:
    try:
        _held[0].submit(prompt)
    except EngineError as exc:
        return str(exc)
    return ""


_held: list = []
error_in_a_child.hold = _held.append
