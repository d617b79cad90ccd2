from __future__ import annotations

import pytest
from families import NAMES, tokenizer

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.scripted import ScriptedEngine
from cmat_graph.rendering.template import encode, study

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}
RULES = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "What is 1 + 2?"}


def call(number=1, name="add", id_="call_from_elsewhere"):
    function = {"name": name, "arguments": {"a": number, "text": "東京"}}
    return {"type": "function", "id": f"{id_}_{number}", "function": function}


def result(number=1, text="It is 3.", id_="call_from_elsewhere"):
    return {"role": "tool", "name": "add", "tool_call_id": f"{id_}_{number}", "content": text}


TURN = {"role": "assistant", "content": "", "tool_calls": [call()]}
TWO = {"role": "assistant", "content": "Both.", "tool_calls": [call(1), call(2)]}


def rendered(name, messages, tools=()):
    """The text of a prompt, as the model would read it."""
    own, template = tokenizer(name), study(tokenizer(name))
    options = {template.tools: list(tools)} if tools and template.tools else {}
    prompt = encode(ScriptedEngine([""], tokenizer=own), template.render(messages, tools), **options)
    return own.decode(prompt)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("qwen", "hermes"),
        ("smol", "hermes"),
        ("llama", "llama3"),
        ("mistral", "mistral"),
        ("mistral-args", "mistral-args"),
        ("gemma", "own"),
        ("codellama", "own"),
        ("coder", "own"),
    ],
)
def test_the_family_shows_in_what_the_template_renders(name, form):
    assert study(tokenizer(name)).format.name == form


def test_nano_has_no_tools_and_keeps_its_rules_in_its_weights():
    template = study(ScriptedEngine([""], chat_template=_nano_template()).tokenizer)
    assert (template.format.name, template.drops_system, template.tools) == ("own", True, "")
    assert template.render([RULES, ASK]) == [RULES, ASK]
    told = template.render([RULES, ASK], [TOOL])
    assert told[0] == RULES
    assert '"name": "add"' in told[1]["content"]
    assert told[1]["content"].endswith(ASK["content"])


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_conversation_reaches_the_model(name):
    text = rendered(name, [RULES, ASK, TURN, result()], [TOOL])
    expected = [ASK["content"], "It is 3.", "東京", "add", "Add."] + (["Be brief."] if name != "r1" else [])
    assert not [part for part in expected if part not in text]


@pytest.mark.parametrize("name", NAMES)
def test_several_calls_of_one_turn_and_a_question_after_a_result(name):
    text = rendered(name, [ASK, TWO, result(1, "One."), result(2, "Two."), {"role": "user", "content": "And?"}], [TOOL])
    assert text.index("One.") < text.index("Two.") < text.index("And?")
    assert text.count("東京") == 2


@pytest.mark.parametrize("name", NAMES)
def test_two_questions_in_a_row(name):
    text = rendered(name, [RULES, ASK, ASK])
    assert text.count(ASK["content"]) == 2


def test_arguments_are_not_encoded_twice():
    assert '"arguments": {"a": 1, "text": "東京"}' in rendered("qwen", [ASK, TURN])


def test_llama_gets_one_call_a_turn_with_its_result_behind_it():
    template = study(tokenizer("llama"))
    chat = template.render([ASK, TWO, result(1), result(2)])
    assert [message["role"] for message in chat] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [message["content"] for message in chat[1::2]] == ["Both.", ""]


def test_mistral_gets_ids_of_nine_characters_that_still_match():
    chat = study(tokenizer("mistral")).render([ASK, TURN, result()])
    assert chat[1]["tool_calls"][0]["id"] == chat[2]["tool_call_id"]
    assert len(chat[2]["tool_call_id"]) == 9


def test_results_are_told_in_words_where_the_template_knows_none():
    chat = study(tokenizer("gemma")).render([ASK, TURN, result(text="3"), ASK], [TOOL])
    assert [message["role"] for message in chat] == ["system", "user", "assistant", "user"]
    assert chat[-1]["content"] == f"<tool_response>\n3\n</tool_response>\n\n{ASK['content']}"
    assert chat[2]["content"].startswith('<tool_call>\n{"name": "add"')


def test_a_refused_system_message_goes_into_the_question():
    chat = study(tokenizer("codellama")).render([RULES, ASK])
    assert chat == [{"role": "user", "content": "Be brief.\n\nWhat is 1 + 2?"}]


def test_what_a_template_refuses_is_a_clear_error():
    with pytest.raises(ConfigurationError, match=r"chat template of scripted refuses these messages: .*alternate"):
        encode(ScriptedEngine([""], tokenizer=tokenizer("gemma")), [ASK, ASK])


def test_a_changed_template_is_studied_anew():
    own = ScriptedEngine([""]).tokenizer
    assert study(own).format.name == "hermes"
    own.chat_template = _nano_template()
    assert study(own).format.name == "own"


def _nano_template():
    from cmat_graph.bases import NANO_FOLDER

    return (
        (NANO_FOLDER / "chat_template.jinja")
        .read_text()
        .replace("{% generation %}", "")
        .replace("{% endgeneration %}", "")
    )
