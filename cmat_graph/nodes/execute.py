"""Execute: the only place where an action reaches the environment."""

from __future__ import annotations

from langgraph.runtime import Runtime

from cmat_graph.state import CmatState, Node, RunContext, context_of
from cmat_graph.types import Observation


def make_execute() -> Node:
    """Build the node that carries out the approved action."""

    def execute(state: CmatState, runtime: Runtime[RunContext]) -> CmatState:
        context = context_of(runtime)
        draft = state["draft"] or ""
        seen = context.session.step(draft) if context.session is not None else Observation(text="", done=True)
        if context.recorder is not None:
            context.recorder.observation(state["step_id"], seen.text, error=seen.error)
        change: CmatState = {
            "draft": None,
            "doubted": "",
            "revisions": 0,
            "round": state["round"] + 1,
            "done_so_far": [*state["done_so_far"], [draft, seen.text]],
            "observation": seen.text,
            "done": seen.done,
        }
        if seen.done:
            return {**change, "answer": draft.rsplit("Final Answer:", 1)[-1].strip()}
        change["trajectory"] = [*state["trajectory"], {"role": "user", "content": seen.text}]
        if seen.error:
            return {**change, "flaw": seen.text}
        return {**change, "flaw": state["flaw"] if state["forced"] else ""}

    return execute
