"""Constrained decoding: which tokens may come next, so that a reply must be JSON by a schema, a choice, or a call.

The work is llguidance's; here its grammars are put together, and kept for the next reply that needs the same.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from cmat_graph.errors import ConfigurationError, EngineError, MissingExtraError
from cmat_graph.models.chat.parsing import THINK, THOUGHT
from cmat_graph.rendering.formats import ChatFormat

try:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance.hf import from_tokenizer
except ImportError as exc:
    raise MissingExtraError.of("local", exc) from exc

MOST_CHOICES = 1_000
MOST_PROPERTIES = 400
"""Of one object; of more, llguidance 1.9 cannot keep in mind which may come."""
LARGEST = 200_000
"""Characters of a grammar: larger ones take seconds to read."""
KEPT = 64
"""Grammars kept ready for each tokenizer."""
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes; free white space would let a small model write nothing else."""


class GrammarConstraint:
    """What one reply must be. Made anew for each request by `Grammars`."""

    def __init__(self, matcher: LLMatcher, schema: Mapping[str, Any] | None = None) -> None:
        self._matcher = matcher
        self.schema = schema
        """The JSON schema of the reply, when it must be JSON by one."""

    def mask(self) -> torch.Tensor:
        """Return which tokens may come next."""
        bias = self._matcher.compute_logit_bias()
        if self._matcher.is_error():
            raise EngineError(f"constrained decoding failed: {_first_line(self._matcher.get_error())}")
        return torch.frombuffer(bytearray(bias), dtype=torch.uint8).bool()

    def advance(self, token: int) -> None:
        """Note the token that was drawn."""
        if not self._matcher.consume_token(token):
            raise EngineError(f"constrained decoding failed: {_first_line(self._matcher.get_error())}")

    def is_done(self) -> bool:
        """Tell whether nothing may follow but the end."""
        return bool(self._matcher.is_stopped())

    def allows(self, tokens: Sequence[int]) -> bool:
        """Tell whether these tokens may come next, and the end after them."""
        ahead = self._matcher.deep_copy()
        return bool(ahead.consume_tokens(list(tokens)) and ahead.is_accepting())


class Grammars:
    """Puts together what replies of one model must be."""

    def __init__(self, tokenizer: Any, ends: Iterable[int]) -> None:
        try:
            self._tokenizer: LLTokenizer = from_tokenizer(tokenizer, n_vocab=len(tokenizer), eos_token=sorted(ends))
        except ValueError as exc:
            raise ConfigurationError(
                f"constrained decoding needs a fast tokenizer: {exc}; take a model that has tokenizer.json"
            ) from exc
        added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        # llguidance 1.9 takes any added token in angle brackets for a special one, whatever its flag says
        special = {text: number for number, text in added.items() if self._tokenizer.is_special_token(number)}
        self._special = special
        self._cut = re.compile(f"({'|'.join(map(re.escape, sorted(special, key=len, reverse=True))) or '(?!)'})")
        self._ready: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def constraint(
        self,
        *,
        schema: Mapping[str, Any] | None = None,
        choices: Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        form: ChatFormat | None = None,
        thinking: Literal["", "may", "open"] = "",
    ) -> GrammarConstraint:
        """Make a constraint: the reply is JSON by the schema, one of the choices, or a call of one of the tools.

        Args:
            schema: A JSON schema.
            choices: Whole replies.
            tools: In OpenAI's form.
            form: How the model writes calls.
            thinking: `may` lets reasoning come first; `open` says that the prompt has opened it. It stays free.

        Raises:
            ConfigurationError: The schema asks for what cannot be enforced; the message names it.

        """
        if len(choices) > MOST_CHOICES:
            raise ConfigurationError(f"{len(choices):,} choices are too many; give {MOST_CHOICES:,} at most")
        if special := next((choice for choice in choices if self._cut.search(choice)), None):
            raise ConfigurationError(f"the choice {special!r} holds a token that only the model's template may write")
        rules, ways = [], [json.dumps(choice, ensure_ascii=False) for choice in choices]
        schemas = [(f"tool {tool['function']['name']!r}", tool["function"].get("parameters")) for tool in tools]
        for number, (_, parameters) in enumerate(schemas):
            before, after = form.frame(tools[number]["function"]["name"]) if form else ("", "")
            ways.append(f"{self._literal(before)} arguments{number} {self._literal(after)}")
            rules.append(f"arguments{number}: %json {_as_json(parameters or {'type': 'object', 'properties': {}})}")
        if schema is not None:
            schemas.append(("the schema", schema))
            ways.append("json")
            rules.append(f"json: %json {_as_json(schema)}")
        if thinking:
            rules.append(f"thought: /(?s:.*)/ {self._literal(THOUGHT)}" if THOUGHT in self._special else _THOUGHT)
            rules.append(f"thoughts: {self._literal(THINK) if thinking == 'may' else ''} thought /\\n{{1,2}}/?")
        start = {"": "start: answer", "may": "start: thoughts? answer", "open": "start: thoughts answer"}[thinking]
        lark = "\n".join([start, f"answer: {' | '.join(ways)}", *rules])
        return GrammarConstraint(self._matcher(lark, schemas), schema)

    def _literal(self, text: str) -> str:
        """Write a text in Lark; special tokens go by their number, since their text is written by nothing else.

        A text of JSON is cut as llguidance cuts JSON: it reads greedily, and two ways may begin with the same brace.
        """
        out = []
        for part in filter(None, self._cut.split(text)):
            number = self._special.get(part)
            out += [f"<[{number}]>"] if number is not None else [json.dumps(bit) for bit in _LEXEMES.findall(part)]
        return " ".join(out)

    def _matcher(self, lark: str, schemas: Sequence[tuple[str, Any]]) -> LLMatcher:
        with self._lock:
            if (ready := self._ready.get(lark)) is not None:
                self._ready.move_to_end(lark)
                return ready.deep_copy()
        if len(lark) > LARGEST:
            raise ConfigurationError(f"schemas and choices take {LARGEST:,} characters at most; make them smaller")
        for what, schema in schemas:
            self._check(what, schema)
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0)
        probe = matcher.deep_copy()
        if not probe.is_error():
            probe.compute_logit_bias()  # some say only here that they are too much
        if probe.is_error():
            raise ConfigurationError(f"the reply cannot be constrained: {_first_line(probe.get_error())}")
        with self._lock:
            self._ready[lark] = matcher
            if len(self._ready) > KEPT:
                self._ready.popitem(last=False)
        return matcher.deep_copy()

    def _check(self, what: str, schema: Any) -> None:
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema or {}))
        except (ValueError, TypeError) as exc:
            raise ConfigurationError(f"{what} is no JSON schema: {exc}") from exc
        if (most := _most_properties(schema)) > MOST_PROPERTIES:
            raise ConfigurationError(f"{what} has an object of {most:,} properties; {MOST_PROPERTIES} at most")
        if special := next(filter(self._cut.search, _values(schema)), None):
            raise ConfigurationError(f"{what} holds {special!r}, a token that only the model's template may write")
        if error := LLMatcher.validate_grammar(grammar, self._tokenizer):
            raise ConfigurationError(
                f"{what} asks for what constrained decoding cannot enforce: {_first_line(error)}; "
                "leave that out of the schema and check it afterwards"
            )


_LEXEMES = re.compile(r'"[^"]*"|[:,] |[{}]|[^"{}:,]+|.', re.DOTALL)
_THOUGHT = f"thought[suffix={json.dumps(THOUGHT)}]: /(?s:.*)/"

_made: WeakKeyDictionary[Any, Grammars] = WeakKeyDictionary()
_made_lock = threading.Lock()


def grammars_of(tokenizer: Any, ends: Iterable[int]) -> Grammars:
    """Return the grammars of a tokenizer; reading its vocabulary takes up to a second, once."""
    with _made_lock:
        if tokenizer not in _made:
            _made[tokenizer] = Grammars(tokenizer, ends)
        return _made[tokenizer]


def _as_json(schema: Mapping[str, Any]) -> str:
    return json.dumps({**_tighten(schema), "x-guidance": _SPACING})


def _tighten(schema: Any, *, closed: bool = True) -> Any:
    """Shut what a schema leaves open and a small model would lose itself in.

    Objects have no properties but those named, unless the schema says so; integers have at most 18 digits, other
    numbers 15 before the point and nine after it.
    """
    if isinstance(schema, list):
        return [_tighten(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    tight: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, Mapping):
            tight[key] = {name: _tighten(each) for name, each in value.items()}
        elif key == "allOf" and isinstance(value, list):  # each of these would forbid what the others name
            tight[key] = [_tighten(each, closed=False) for each in value]
        else:
            tight[key] = value if key in _VALUES else _tighten(value)
    if "properties" in schema and closed and not {"additionalProperties", "allOf"} & set(schema):
        tight["additionalProperties"] = False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if {"enum", "const"} & set(schema) or not {"integer", "number"} & set(kinds):
        return tight
    if "number" in kinds:
        return {"multipleOf": 1e-9} | _bounds(schema, 10**15 - 1) | tight
    return tight if "multipleOf" in schema else _bounds(schema, 10**18 - 1) | tight


def _bounds(schema: Mapping[str, Any], most: int) -> dict[str, int]:
    """Return the bounds that a number's schema lacks."""
    lows, highs = (
        [value for key in keys if isinstance(value := schema.get(key), int | float)]
        for keys in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    )
    low = {"minimum": -most} if not lows and all(high > -most for high in highs) else {}
    return low | ({"maximum": most} if not highs and all(low < most for low in lows) else {})


_BY_NAME = {"properties", "patternProperties", "$defs", "definitions"}
_VALUES = {"enum", "const", "default", "examples", "required"}


def _most_properties(schema: Any) -> int:
    if isinstance(schema, list):
        return max(map(_most_properties, schema), default=0)
    if not isinstance(schema, Mapping):
        return 0
    named = schema.get("properties")
    own = len(named) if isinstance(named, Mapping) else 0
    return max(own, *map(_most_properties, schema.values())) if schema else 0


def _values(schema: Any) -> Iterator[str]:
    """Yield the texts that a schema demands as they are: names of properties, and values."""
    if isinstance(schema, list):
        for each in schema:
            yield from _values(each)
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("properties", "required") and isinstance(value, Mapping | list):
                yield from map(str, value)
            if key in ("enum", "const"):
                yield from (value,) if isinstance(value, str) else filter(_is_text, value if key == "enum" else ())
            yield from _values(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _first_line(error: str) -> str:
    return error.strip().splitlines()[0] if error.strip() else "unknown reason"
