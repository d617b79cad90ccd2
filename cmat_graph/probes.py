"""Read-only checks of an action's form, for any environment or tool to use in its `probe`.

Each returns what it noticed or None, carries nothing out, knows no gold label, and takes any text without failing.
What a statement does to a database is looked at where the database is.
"""

from __future__ import annotations

import difflib
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cmat_graph.types import Finding

BASH_SECONDS = 5.0
NEAREST = 3
LISTED = 10
SHOWN = 200
"""Characters of foreign text in a finding; it goes into a prompt."""
_CLICK = re.compile(r"(search|click)\[(.*)\]")

logger = logging.getLogger(__name__)


def probe_bash(script: str) -> Finding | None:
    """Check that bash can parse a script; nothing of it is executed.

    Without bash on this machine there is no finding.

    Example:
        >>> probe_bash("if true; then echo hi")
        Finding(text='The script does not parse: line 2: syntax error: unexpected end of file.', ...)
    """
    bash = shutil.which("bash")
    if bash is None:
        _say_once("there is no bash on this machine; scripts are not checked before they run")
        return None
    # A script may turn extglob on for itself, which only running it would show.
    command = [bash, "--norc", "--noprofile", "-O", "extglob", "-n"]
    try:
        with tempfile.TemporaryFile() as file:  # from a pipe bash reads byte by byte: a second for a megabyte
            file.write(script.encode("utf-8", "surrogatepass"))
            file.seek(0)
            done = subprocess.run(command, stdin=file, capture_output=True, env={}, timeout=BASH_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        logger.info("a script was not checked: %s", exc)
        return None
    said = done.stderr.decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix(f"{bash}: ") for line in said if ": warning: " not in line]
    if done.returncode <= 0 or not errors:  # below zero bash itself gave up, as on a thousandfold `$(`
        return None
    return Finding(
        text=f"The script does not parse: {_shown(errors[0])}.",
        hint="Close each quote, bracket, `if`, `case` and loop.",
    )


def probe_choice(action: str, admissible: Sequence[str]) -> Finding | None:
    """Check that an action is one of the admissible ones; case and white space do not count.

    Example:
        >>> probe_choice("go to shelf1", ["go to shelf 1", "look"]).hint
        'Did you mean `go to shelf 1`?'
    """
    if not action.strip():
        return Finding(text="The reply holds no action.", hint=_suggest("", admissible), category="format")
    if _fold(action) in map(_fold, admissible):
        return None
    return Finding(text=f"`{_shown(action)}` is not admissible here.", hint=_suggest(action, admissible))


def probe_click(action: str, clickables: Sequence[str], *, has_search_bar: bool) -> Finding | None:
    """Check a web shop's action: `search[words]` where there is a search bar, `click[name]` on what can be clicked.

    Example:
        >>> probe_click("click[buy]", ["Buy Now", "< Prev"], has_search_bar=False).hint
        'Did you mean `click[Buy Now]`?'
    """
    form = _CLICK.fullmatch(action.strip())
    if form is None:
        return Finding(
            text="The action has no known form.",
            hint="Write `search[words]` or `click[name]`, nothing else.",
            category="format",
        )
    if form[1] == "click":
        if form[2].casefold() in map(str.casefold, clickables):
            return None
        hint = _suggest(form[2], clickables, nearest=1, form="click[{}]")
        return Finding(text=f"`{_shown(form[2])}` cannot be clicked here.", hint=hint)
    if not has_search_bar:
        return Finding(text="There is no search bar on this page.", hint=_suggest("", clickables, form="click[{}]"))
    if not form[2].strip():
        return Finding(text="The search has no words.", hint="Write `search[words]`.")
    return None


def probe_arguments(name: str, arguments: object, schema: Mapping[str, Any]) -> Finding | None:
    """Check the arguments of one tool call against the tool's JSON schema.

    What is missing is certain. Anything else is a suspicion, since a tool may turn `"3"` into 3. A broken schema
    is the tool's matter: no finding.

    Args:
        name: The tool's name, for the text.
        arguments: What the model gave.
        schema: JSON Schema, draft 2020-12, as LangChain and MCP tools have it.

    Example:
        >>> probe_arguments("add", {"a": 1}, {"type": "object", "required": ["a", "b"]}).text
        "The arguments of `add` do not fit: 'b' is a required property."
    """
    import jsonschema  # a tenth of a second, which only those who check arguments should pay
    from referencing import Registry

    required = schema.get("required")
    names = ", ".join(f"`{_shown(str(key))}`" for key in required) if isinstance(required, list) else ""
    hint = f"Required: {names}." if names else ""
    if not isinstance(arguments, dict):
        return Finding(text=f"The arguments of `{_shown(name)}` are no JSON object.", hint=hint)
    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
        # Without a registry of its own the validator would fetch references from the network.
        errors = list(jsonschema.Draft202012Validator(dict(schema), registry=Registry()).iter_errors(arguments))
        missing = [error for error in errors if error.validator == "required"]
        worst = jsonschema.exceptions.best_match(missing or errors)
    except Exception as exc:  # a schema can break in ways without number, and a probe must never break a run
        _say_once(f"arguments of {name!r} are not checked, its schema is broken: {_shown(str(exc))}")
        return None
    if worst is None:
        return None
    place = "" if worst.json_path == "$" else f" at `{_shown(worst.json_path)}`"
    return Finding(
        text=f"The arguments of `{_shown(name)}` do not fit{place}: {_shown(worst.message)}.",
        hint=hint,
        certain=bool(missing),
    )


def _suggest(action: str, admissible: Sequence[str], *, nearest: int = NEAREST, form: str = "{}") -> str:
    """Name the admissible actions that are like this one, or some of all when none is."""
    known = {_fold(choice): f"`{form.format(_shown(choice))}`" for choice in admissible}
    close = difflib.get_close_matches(_fold(action)[:SHOWN], known, n=nearest, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(known[choice] for choice in close)}?"
    if not known:
        return "Nothing is admissible here."
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"Admissible: {', '.join(list(known.values())[:LISTED])}{more}."


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


@cache
def _say_once(message: str) -> None:
    logger.info(message)
