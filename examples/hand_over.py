"""Let a small model answer what it is sure of, and one behind it the rest; then try a new model on a few episodes.

The one behind is the expert here, who plays the gold: put any LangChain chat model in its place, such as
`load_model("openai:gpt-5-mini")`.
"""

from cmat_graph import create_cmat_graph, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.handover import HandOver, Trial
from cmat_graph.testing import ScriptedChatModel

env = load_env("database", size=256)
tasks = env.tasks("test")[:48]
nano, expert = TinyAgent.load("nano"), ExpertChatModel(demonstrations=env.demonstrations())


def solved(assistant):
    """Play the tasks; return the share that was solved."""
    graph = create_cmat_graph(assistant, max_attempts=1).compile()
    return sum(outcome.reward for outcome in run_episodes(graph, tasks, env=env)) / len(tasks)


pair = HandOver(primary=nano, fallback=expert, threshold=0.5)
print(f"nano alone: {solved(nano):.0%}; handed over when unsure: {solved(pair):.0%}")
print(f"replies: {pair.counts['replies']}, of which the model behind gave {pair.counts['unsure']}")

# A new model that turns out to be worse: it answers half of the episodes, until that is certain.
trial = Trial(current=pair, candidate=ScriptedChatModel(replies=["Let me think."], model_name="new"), share=0.5)
print(f"with a new model on trial: {solved(trial):.0%}")
result = trial.result()
print(f"{result.candidate}: {result.status} after {result.outcomes['candidate'].episodes} episodes")
