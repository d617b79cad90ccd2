"""Record a teacher, distil it into a LoRA adapter, put the small model in its place, compare on held-out tasks."""

import tempfile
from pathlib import Path

from cmat_graph import AdapterRegistry, create_cmat_graph, evaluate, run_episodes
from cmat_graph.envs import load_env
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.traces import SQLTraceStore
from cmat_graph.tuning import TrainSettings, distill

folder = Path(tempfile.mkdtemp())
env = load_env("database", size=64)
traces = SQLTraceStore(f"sqlite:///{folder / 'traces.db'}")

teacher = create_cmat_graph(ExpertChatModel(demonstrations=env.demonstrations())).compile()
run_episodes(teacher, env.tasks("train"), env=env, traces=traces, run="teacher")

card = distill(traces, AdapterRegistry(folder / "adapters"), settings=TrainSettings(epochs=4))
print(f"{card.id}: {card.examples} examples, loss {card.loss[0]:.2f} to {card.loss[-1]:.2f}")

arms = {
    "base": create_cmat_graph(TinyAgent.load("nano"), max_attempts=1).compile(),
    "tuned": create_cmat_graph(TinyAgent.load(card), max_attempts=1).compile(),
}
for arm in evaluate(arms, env.tasks("test"), env=env):
    print(f"{arm.name}: {arm.success_rate:.0%} ± {arm.stderr:.0%} of {arm.n}")
