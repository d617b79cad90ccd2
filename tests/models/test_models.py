from __future__ import annotations

import asyncio

import pytest

from cmat_graph.errors import AdapterNotFoundError, ConfigurationError, MissingExtraError, ModelNotFoundError
from cmat_graph.models import ExpertChatModel, load_model
from cmat_graph.models.chat_model import TinyAgent
from cmat_graph.models.engine import shared_engine


@pytest.fixture(scope="module")
def nano():
    return TinyAgent.load("nano", max_tokens=48)


def test_nano_loads_as_any_model_and_answers(nano, env):
    reply = nano.invoke(env.tasks()[0].prompt)
    assert reply.text
    assert reply.usage_metadata["input_tokens"] > 10
    assert reply.response_metadata["model_name"] == "nano"


def test_nano_is_small():
    from cmat_graph.bases import NANO_FOLDER

    assert (NANO_FOLDER / "model.safetensors").stat().st_size <= 16e6


def test_a_batch_answers_as_single_calls_do(nano, env):
    prompts = [task.prompt for task in env.tasks()[:12]]
    singles = [nano.invoke(prompt).text for prompt in prompts]
    assert [reply.text for reply in nano.batch(prompts)] == singles


def test_async_calls_share_the_engine(nano, env):
    async def ask():
        return await asyncio.gather(*(nano.ainvoke(task.prompt) for task in env.tasks()[:4]))

    assert [r.text for r in asyncio.run(ask())] == [nano.invoke(t.prompt).text for t in env.tasks()[:4]]


def test_all_models_of_a_base_share_its_weights(nano):
    assert TinyAgent.load("nano").engine is nano.engine is shared_engine("nano")


def test_a_seed_repeats_a_sampled_reply(nano, env):
    hot = TinyAgent.load("nano", temperature=1.5, max_tokens=32)
    prompt = env.tasks()[0].prompt
    assert hot.invoke(prompt, seed=1).text == hot.invoke(prompt, seed=1).text
    assert len({hot.invoke(prompt, seed=i).text for i in range(6)}) > 1


def test_a_reply_stops_at_a_stop_string_and_at_its_limit(nano, env):
    prompt = env.tasks()[0].prompt
    assert "\n" not in nano.invoke(prompt, stop=["\n"]).text
    cut = nano.invoke(prompt, max_tokens=3)
    assert (cut.usage_metadata["output_tokens"], cut.response_metadata["finish_reason"]) == (3, "length")


def test_a_prompt_past_the_window_is_refused(nano):
    with pytest.raises(ValueError, match="fills the window"):
        nano.invoke("word " * 5000)
    assert nano.invoke("still there").text is not None


def test_the_system_message_is_in_the_weights_not_in_the_prompt(nano):
    engine = nano.engine
    task = {"role": "user", "content": "Hi"}
    assert engine.encode([{"role": "system", "content": "Long rules."}, task]) == engine.encode([task])


@pytest.mark.parametrize("name", ["unknown", "./missing", "a/b/c"])
def test_an_unknown_model_names_the_choices(name):
    with pytest.raises(ModelNotFoundError, match="nano"):
        load_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load_model(str(tmp_path))


def test_a_broken_model_folder_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ModelNotFoundError, match="cannot load base"):
        load_model(str(tmp_path))


def test_truncated_weights_are_one_clear_error(tmp_path):
    import shutil

    from cmat_graph.bases import NANO_FOLDER

    shutil.copytree(NANO_FOLDER, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelNotFoundError, match="cannot load base"):
        load_model(str(tmp_path / "cut"))


def test_an_unknown_adapter_is_refused(tmp_path):
    from cmat_graph import AdapterRegistry

    with pytest.raises(AdapterNotFoundError, match="none yet"):
        load_model("nano", adapter="x", adapters=AdapterRegistry(tmp_path))
    with pytest.raises(AdapterNotFoundError):
        shared_engine("nano").submit([5], adapter="assistant/none")


def test_the_expert_plays_only_its_own_tasks(env):
    expert = load_model("expert", demonstrations=env.demonstrations)
    assert isinstance(expert, ExpertChatModel)
    with pytest.raises(ModelNotFoundError, match="no demonstration"):
        expert.invoke("Something else")
    task = env.tasks()[0].prompt
    alone = expert.invoke(task).text
    for below in ("Lessons from earlier attempts:\n- Look first.", "[2 earlier messages were left out]"):
        assert expert.invoke(f"{task}\n\n{below}").text == alone
    with pytest.raises(ConfigurationError):
        load_model("expert")
    with pytest.raises(ConfigurationError, match="nobody knows the solutions"):
        load_model("expert", demonstrations=dict)


def test_a_provider_that_is_not_installed_names_the_fix():
    pytest.importorskip("langchain")
    with pytest.raises(MissingExtraError, match="pip install"):
        load_model("cohere:nothing")


def test_a_reply_that_only_repeats_itself_ends():
    from cmat_graph.models.decoding.rows import LOOP_TOKENS, Pending, Row
    from cmat_graph.models.decoding.sampling import Sampling

    def reply(tokens):
        row = Row(prompt=[1], adapter="", sampling=Sampling(max_tokens=1000), pending=Pending())
        for token in tokens:
            row.add(token, 0.0, frozenset({1}))
        return row.finish_reason

    assert reply([2, *range(10, 9 + LOOP_TOKENS)]) == ""
    assert reply([3, 4, 5] * (LOOP_TOKENS // 3)) == "length"


def test_greedy_replies_are_those_of_transformers_own_generate(nano, env):
    import torch

    engine = nano.engine
    for task in env.tasks()[:5]:
        prompt = engine.encode([{"role": "user", "content": task.prompt}])
        with torch.inference_mode():
            whole = engine._worker.batch._model.generate(torch.tensor([prompt]), max_new_tokens=48, do_sample=False)
        ids = whole[0, len(prompt) :]
        theirs = engine.tokenizer.decode(ids, skip_special_tokens=True)
        assert nano.invoke(task.prompt).text == theirs


def test_a_seeded_reply_is_the_same_in_company(nano, env):
    hot = TinyAgent.load("nano", temperature=1.0, max_tokens=32, seed=5)
    prompts = [task.prompt for task in env.tasks()[:8]]
    alone = [hot.invoke(prompt).text for prompt in prompts]
    assert [reply.text for reply in hot.batch(prompts)] == alone
