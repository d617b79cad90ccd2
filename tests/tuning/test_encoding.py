"""What is trained on is what is served: the same prompts, byte for byte, and loss on replies alone."""

from __future__ import annotations

import copy

import pytest
from families import NAMES, tokenizer

from cmat_graph.errors import DatasetError
from cmat_graph.models.chat.calls import Wanted, prepare
from cmat_graph.models.chat.messages import to_chat
from cmat_graph.models.engine import shared_engine
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.nodes.calling import to_langchain
from cmat_graph.tuning.dataset import Example, Origin
from cmat_graph.tuning.encoding import encode, encode_turn, end_tokens, render_prompt, to_ids

ORIGIN = Origin(task_id="t1")
RULES = {"role": "system", "content": "Be brief. <|im_end|></s>"}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Add <|end|>.", "parameters": {"type": "object", "properties": {}}},
}


def ask(text="How many rows?"):
    return {"role": "user", "content": text}


def say(text, weight=1.0, **more):
    return {"role": "assistant", "content": text, "weight": weight, **more}


def calls(*numbers, text="", weight=1.0):
    made = [{"name": "add", "args": {"a": n, "text": "東京"}, "id": f"call_{n}"} for n in numbers]
    return say(text, weight, tool_calls=made)


def result(number, text="It is 3."):
    return {"role": "tool", "content": text, "tool_call_id": f"call_{number}"}


TEXTS = [RULES, ask(), say("Thought: look.\nAction: A <|im_end|> B"), ask("Error: no such table"), say("Sorry.", 0.5)]
CALLS = [RULES, ask(), calls(1), result(1), say("Three."), ask("And 2?"), calls(2, text="Now 2."), result(2), say("4.")]
CONVERSATIONS = {"texts": (TEXTS, []), "calls": (CALLS, [TOOL]), "tools unused": (TEXTS, [TOOL])}


def engine_of(name):
    return shared_engine("nano") if name == "nano" else ScriptedEngine([""], tokenizer=tokenizer(name))


def example(messages, tools=()):
    return Example(messages=list(messages), tools=list(tools), origin=ORIGIN)


def learned(own, row):
    """The texts that carry loss, one for each run of weighted tokens."""
    texts, run = [], []
    for token, weight in [*zip(row.ids, row.weights, strict=True), (0, 0.0)]:
        if weight:
            run.append(token)
        elif run:
            texts.append(own.decode(run))
            run = []
    return texts


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("name", [*NAMES, "nano"])
def test_the_prompt_of_training_is_the_prompt_that_is_served(name, kind):
    messages, tools = CONVERSATIONS[kind]
    engine = engine_of(name)
    for at in (place for place, message in enumerate(messages) if message["role"] == "assistant"):
        served = prepare(engine, to_chat([to_langchain(m) for m in messages[:at]]), Wanted(tools=tools)).prompt
        turn = encode_turn(messages[:at], messages[at], engine.tokenizer, tools=tools)
        assert turn.prompt_ids == served
        assert turn.prompt == engine.tokenizer.decode(served)
        assert turn.prompt == render_prompt(messages[:at], engine.tokenizer, tools=tools)


@pytest.mark.parametrize("name", ["qwen", "smol"])
def test_so_it_is_with_thinking_switched_off(name):
    engine = engine_of(name)
    served = prepare(engine, to_chat([to_langchain(m) for m in TEXTS[:2]]), Wanted(thinking=False)).prompt
    turn = encode_turn(TEXTS[:2], say("A.", reasoning="Hm."), engine.tokenizer, thinking=False)
    assert turn.prompt_ids == served
    assert turn.prompt.endswith("</think>\n\n" if name == "qwen" else "</think>\n")
    assert turn.reply == "A.<|im_end|>"


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("name", [*NAMES, "nano"])
def test_every_token_of_a_reply_carries_its_weight_and_no_other_does(name, join):
    own = engine_of(name).tokenizer
    encoded = encode(example(TEXTS), own, limit=4096, join=join)
    end = own.eos_token
    opening = "\n</think>\n\n" if name == "r1" else ""
    first, second = "Thought: look.\nAction: A <|im_end|> B", "Sorry."
    if "<|im_end|>" in own.get_vocab():
        first = first.replace("<|im_end|>", "< |im_end|>")
    space = {"codellama": (" ", " "), "mistral": (" ", ""), "mistral-args": (" ", "")}.get(name, ("", ""))
    texts = [opening + space[0] + text + space[1] + end for text in (first, second)]
    found = [learned(own, row) for row in encoded.rows]
    assert found == ([texts] if len(encoded.rows) == 1 else [[text] for text in texts])
    assert (encoded.targets, encoded.too_long) == (2, 0)
    for row in encoded.rows:
        assert len(row.ids) == len(row.weights)
        assert set(row.weights) <= {0.0, 1.0, 0.5}
        assert row.weights[-1] > 0
        assert row.ids[-1] == own.eos_token_id  # the mark that ends a reply is learned


@pytest.mark.parametrize("name", [*NAMES, "nano"])
def test_turns_share_a_row_but_where_the_template_drops_what_was_thought(name):
    own = engine_of(name).tokenizer
    rows = encode(example(TEXTS), own, limit=4096).rows
    assert len(rows) == (2 if name == "r1" else 1)
    apart = encode(example(TEXTS), own, limit=4096, join=False).rows
    assert rows[-1].ids == apart[-1].ids
    assert sum(map(sum, (row.weights for row in rows))) == sum(map(sum, (row.weights for row in apart)))


def test_a_rejected_action_is_never_a_target():
    own = engine_of("qwen").tokenizer
    [row] = encode(example([ask(), say("DROP TABLE x", 0.0), ask("Rejected."), say("SELECT 1")]), own, limit=999).rows
    assert learned(own, row) == ["SELECT 1<|im_end|>"]
    assert "DROP TABLE x" in own.decode(row.ids)


def test_the_weights_of_two_replies_stay_apart():
    own = engine_of("nano").tokenizer
    [row] = encode(example([ask(), say("a", 0.25), ask(), say("b", 2.0)]), own, limit=999).rows
    prompt = to_ids(own, "<|user|>How many rows?<|end|><|assistant|>")
    one = to_ids(own, "a<|end|>")
    assert row.weights == [0.0] * len(prompt) + [0.25] * len(one) + [0.0] * len(prompt) + [2.0] * len(one)


@pytest.mark.parametrize("name", ["qwen", "llama", "mistral", "mistral-args", "gemma", "smol", "nano"])
def test_a_call_is_learned_as_the_family_writes_it(name):
    own = engine_of(name).tokenizer
    rows = encode(example(CALLS, [TOOL]), own, limit=4096).rows
    texts = [text for row in rows for text in learned(own, row)]
    assert len(texts) == 4
    assert '"a": 1' in texts[0]
    assert "add" in texts[0]
    assert texts[0].endswith(own.eos_token)
    assert "It is 3." not in "".join(texts)


def test_a_model_of_one_call_a_turn_learns_each_call_with_the_results_before_it():
    own = engine_of("llama").tokenizer
    messages = [ask(), calls(1, 2), result(1, "One."), result(2, "Two."), say("Both.")]
    [row] = encode(example(messages, [TOOL]), own, limit=4096).rows
    texts = learned(own, row)
    assert ['"a": 1' in texts[0], '"a": 2' in texts[1], texts[2]] == [True, True, "Both.<|eot_id|>"]
    assert own.decode(row.ids).index("One.") < own.decode(row.ids).index('"a": 2')
    [row] = encode(example([ask(), calls(1, 2)], [TOOL]), own, limit=4096).rows
    assert len(learned(own, row)) == 1


def test_reasoning_is_learned_and_never_comes_back_in_a_prompt():
    own = engine_of("qwen").tokenizer
    messages = [ask(), say("4", reasoning="2 + 2"), ask(), say("5", reasoning="2 + 3")]
    rows = encode(example(messages), own, limit=999).rows
    assert [learned(own, row) for row in rows] == [
        ["<think>\n2 + 2\n</think>\n\n4<|im_end|>"],
        ["<think>\n2 + 3\n</think>\n\n5<|im_end|>"],
    ]
    assert "2 + 2" not in own.decode(rows[1].ids)


def test_reasoning_whose_block_the_prompt_has_opened_is_closed_by_the_reply():
    own = engine_of("r1").tokenizer
    turn = encode_turn([ask()], say("4", reasoning="2 + 2 <think>"), own)
    assert turn.prompt.endswith("<think>\n")
    assert turn.reply == "2 + 2 < think>\n</think>\n\n4<|end|>"


def test_a_reply_ends_at_which_token_the_model_stops():
    own = copy.deepcopy(tokenizer("gemma"))
    own.eos_token = "<bos>"  # as Gemma's own tokenizer, whose model also stops at <end_of_turn>
    turn_end = own.convert_tokens_to_ids("<end_of_turn>")
    both = encode_turn([ask()], say("A."), own, ends={turn_end, own.eos_token_id})
    assert both.reply == "A.<end_of_turn>"
    only = encode_turn([ask()], say("A."), own)
    assert (only.reply, only.reply_ids[-1]) == ("A.<bos>", own.eos_token_id)


def test_the_tokens_at_which_a_model_stops_are_the_engines():
    engine = shared_engine("nano")
    assert end_tokens(engine._worker.batch._model, engine.tokenizer) == engine.ends
    assert end_tokens(None, engine.tokenizer) == {engine.tokenizer.eos_token_id}


def test_a_row_that_is_too_long_is_left_out_and_counted_and_never_cut():
    own = engine_of("nano").tokenizer
    messages = [ask(), say("a"), ask("b " * 200), say("c"), ask(), say("d")]
    whole = encode(example(messages), own, limit=9999)
    first = encode(example(messages[:2]), own, limit=9999).rows
    assert len(whole.rows) == 1
    cut = encode(example(messages), own, limit=len(whole.rows[0].ids) - 1)
    assert (cut.targets, cut.too_long) == (2, 1)
    assert cut.rows[0].ids == whole.rows[0].ids[: len(cut.rows[0].ids)]
    assert cut.rows[0].ids[-1] == own.eos_token_id
    short = encode(example(messages), own, limit=len(first[0].ids))
    assert (short.rows, short.targets, short.too_long) == (first, 1, 2)
    assert encode(example(messages), own, limit=3).rows == []


def test_only_an_assistant_can_be_learned():
    with pytest.raises(DatasetError, match=r"message 0 of task 't1' .* role is 'user'"):
        encode(example([ask() | {"weight": 1.0}, say("a")]), engine_of("nano").tokenizer, limit=99)


def test_what_a_template_refuses_is_a_clear_error():
    own = copy.deepcopy(tokenizer("qwen"))
    own.chat_template = own.chat_template + "{{ raise_exception('never') if messages | length > 2 }}"
    with pytest.raises(DatasetError, match=r"refuses a recorded conversation .*never.*take another base"):
        encode(example(TEXTS), own, limit=999)
