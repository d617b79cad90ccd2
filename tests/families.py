"""Tiny tokenizers with the marks and the chat templates of model families: short, but faithful in what is parsed."""

# ruff: noqa: E501 - a line break in a template is one in the prompt
from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

QWEN = """
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
For each call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

LLAMA = """<|begin_of_text|>
{%- set first = namespace(user=true) %}
{%- for message in messages %}
{%- if message.role == 'user' and tools and first.user %}{% set first.user = false %}<|start_header_id|>user<|end_header_id|>

Given the following functions, please respond with a JSON for a function call.
Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{{ message.content }}<|eot_id|>
{%- elif message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
{%- set call = message.tool_calls[0].function %}<|start_header_id|>assistant<|end_header_id|>

{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|eot_id|>
{%- elif message.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ message.content | tojson }}<|eot_id|>
{%- else %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content }}<|eot_id|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

MISTRAL = """<s>
{%- if messages[0].role == 'system' %}{% set rules = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{%- set seen = namespace(last='assistant', asked=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set seen.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if seen.last == 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}{% set seen.last = 'user' %}
{%- if tools and loop.index0 == seen.asked %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST] {% if loop.first and rules %}{{ rules }}

{% endif %}{{ message.content }}[/INST]
{%- elif message.tool_calls %}{% set seen.last = 'assistant' %}CALLS
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}[TOOL_RESULTS] {{ {'content': message.content, 'call_id': message.tool_call_id} | tojson }}[/TOOL_RESULTS]
{%- else %}{% set seen.last = 'assistant' %} {{ message.content }}</s>{% endif %}{% endfor %}"""
_OLD_CALLS = """[TOOL_CALLS][{% for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}{% if not loop.last %}, {% endif %}{% endfor %}]</s>"""
_NEW_CALLS = """{% for call in message.tool_calls %}[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}</s>"""

GEMMA = """<bos>
{%- if messages[0].role == 'system' %}{% set rules = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}<start_of_turn>{{ role }}
{% if loop.first %}{{ rules }}{% endif %}{{ message.content | trim }}<end_of_turn>
{% endfor %}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

SMOL = """<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{%- if xml_tools %}
<tools>{% for tool in xml_tools %}
{{ tool | string }}{% endfor %}
</tools>
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>{% endif %}<|im_end|>
{% for message in messages %}
{%- if message.role == 'assistant' %}<|im_start|>assistant
{{ message.content }}<|im_end|>
{% elif message.role in ('user', 'tool') %}<|im_start|>user
{{ message.content }}<|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>
{% endif %}{% endif %}"""

CODELLAMA = """
{%- if messages[0].role == 'system' %}{{ raise_exception('no system messages, please') }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}<s>[INST] {{ message.content }} [/INST]
{%- elif message.role == 'assistant' %} {{ message.content }} </s>{% endif %}{% endfor %}"""

R1 = """
{%- for message in messages %}
{%- if message.role == 'user' %}<|user|>{{ message.content }}
{%- elif message.role == 'assistant' %}<|assistant|>{{ message.content }}<|end|>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|><think>
{% endif %}"""

CODER = QWEN.replace(
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}',
    "<function={{ call.function.name }}>{{ call.function.arguments | tojson }}</function>",
).replace('{"name": <function-name>, "arguments": <args-json-object>}', "<function=name></function>")

_FAMILIES = {
    "qwen": (QWEN, ["<|im_end|>", "<|im_start|>", "<|endoftext|>"], ["<tool_call>", "</tool_call>", "<think>", "</think>"]),
    "coder": (CODER, ["<|im_end|>", "<|im_start|>"], ["<tool_call>", "</tool_call>"]),
    "llama": (LLAMA, ["<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"], []),
    "mistral": (MISTRAL.replace("CALLS", _OLD_CALLS), ["</s>", "<s>", "[INST]", "[/INST]", "[TOOL_CALLS]"], []),
    "mistral-args": (MISTRAL.replace("CALLS", _NEW_CALLS), ["</s>", "<s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]"], []),
    "gemma": (GEMMA, ["<end_of_turn>", "<bos>", "<start_of_turn>"], []),
    "smol": (SMOL, ["<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>", "<think>", "</think>"], []),
    "codellama": (CODELLAMA, ["</s>", "<s>"], []),
    "r1": (R1, ["<|end|>", "<|user|>", "<|assistant|>"], ["<think>", "</think>"]),
}  # fmt: skip
NAMES = sorted(_FAMILIES)
_LINES = ["Hello, how are you today?", '{"name": "add", "arguments": {"a": 1, "b": [2, 3]}}', "Zürich, 東京, 北京 😀"]


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a family; the first of its special tokens ends a turn."""
    template, special, plain = _FAMILIES[name]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        _LINES * 4,
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    bpe.add_tokens([AddedToken(token, normalized=False) for token in plain])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[0], clean_up_tokenization_spaces=False)
    made.chat_template = template
    return made
