"""Exercises from WebShop's goals: search, choose the product, choose its options, buy."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cmat_graph.drills.drill import Chooser, Drill
from cmat_graph.errors import TaskFileError
from cmat_graph.flaws import ShopPage, break_shop
from cmat_graph.types import Message, Task

RULES = """\
The environment is a web shop. Each of your turns is a thought and one action:
Thought: why
Action: search[words] or click[what stands on the page]
Search, click the product that fits, click each option that the task asks for, then click[Buy Now]."""
LISTED = 4
"""Products on a page of results."""
NAME_CHARS = 70


class Product(BaseModel):
    """A line of `products.jsonl`, as far as it is needed here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    asin: str
    name: str
    category: str = ""
    price: list[float] = []
    options: dict[str, list[str]] = {}


class Goal(BaseModel):
    """A line of `goals.jsonl`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    asin: str
    instruction_text: str
    query: str
    goal_options: dict[str, str] | list[str] = {}
    """Name to value; where people wrote the goal, values alone."""

    @property
    def wanted(self) -> list[str]:
        """The options to choose."""
        return list(self.goal_options.values() if isinstance(self.goal_options, dict) else self.goal_options)

    @property
    def split(self) -> str:
        """`test` for the goals of a quarter of the products, whatever the file's order; else `train`."""
        number = int(hashlib.sha256(f"shop-test:{self.asin}".encode()).hexdigest()[:8], 16)
        return "test" if number % 4 == 0 else "train"


def read_shop(folder: str | os.PathLike[str]) -> tuple[list[Goal], list[Product]]:
    """Read a folder with WebShop's `goals.jsonl` and `products.jsonl`.

    Raises:
        TaskFileError: A file is missing or malformed; the message names the line.

    """
    goals = [Goal.model_validate(each) for each in _lines(Path(folder, "goals.jsonl"), Goal)]
    return goals, [Product.model_validate(each) for each in _lines(Path(folder, "products.jsonl"), Product)]


def shop_drills(
    goals: Sequence[Goal], products: Sequence[Product], *, flaws_each: int = 1, seed: int = 0
) -> Iterator[Drill]:
    """Yield the gold actions of each goal and as many broken ones; goals whose product is not listed are left out."""
    by_id = {product.asin: product for product in products}
    alike: dict[str, list[Product]] = {}
    for each in products:
        alike.setdefault(each.category, []).append(each)
    queries = sorted({goal.query for goal in goals})
    chooser = Chooser(flaws_each)
    for goal in goals:
        product = by_id.get(goal.asin)
        if product is None:
            continue
        rng = random.Random(f"{seed}:{goal.id}")
        others = [each for each in alike[product.category] if each.asin != goal.asin]
        listed = [product, *rng.sample(others, min(LISTED - 1, len(others)))]
        rng.shuffle(listed)
        searches = rng.sample([query for query in queries if query != goal.query], 3) if len(queries) > 3 else []
        common: dict[str, Any] = {
            "task": Task(id=goal.id, prompt=goal.instruction_text, split=goal.split),
            "env": "shop",
            "rules": RULES,
        }
        before: list[Message] = []
        for action, page, seen in _play(goal, product, listed, searches):
            yield Drill(reply=_reply(action), fixed=action, before=list(before), **common)
            for flaw in chooser.choose(break_shop(action, page, rng)):
                yield Drill(reply=_reply(flaw.broken), fixed=action, flaw=flaw, before=list(before), **common)
            before += [{"role": "assistant", "content": _reply(action)}, {"role": "user", "content": seen}]


def _play(
    goal: Goal, product: Product, listed: Sequence[Product], searches: Sequence[str]
) -> Iterator[tuple[str, ShopPage, str]]:
    """Yield each gold action with the page it is for and the page that follows."""
    shown = "\n".join(f"[{each.asin}] {each.name[:NAME_CHARS]} {_price(each)}".rstrip() for each in listed)
    yield f"search[{goal.query}]", ShopPage(search_bar=True, searches=searches), f"[Back to Search]\n{shown}"
    wanted = [value for value in goal.wanted if any(value in all_ for all_ in product.options.values())]
    options = {name: _some(values, wanted) for name, values in product.options.items()}
    choices = [f"{name}: " + " ".join(f"[{value}]" for value in values) for name, values in options.items()]
    page = "\n".join(["[Back to Search] [Buy Now]", product.name[:NAME_CHARS], *choices])
    results = ShopPage(products=[each.asin for each in listed], searches=searches)
    yield f"click[{product.asin}]", results, page
    for value in wanted:
        yield f"click[{value}]", ShopPage(options=options, searches=searches), f"You have chosen {value}.\n{page}"
    yield "click[Buy Now]", ShopPage(options=options, searches=searches), "Thank you for shopping."


def _some(values: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the first few choices, and those that are wanted."""
    return [value for at, value in enumerate(values) if at < 6 or value in wanted]


def _price(product: Product) -> str:
    return f"${product.price[0]:.2f}" if product.price else ""


def _reply(action: str) -> str:
    return f"Thought: This is the next step.\nAction: {action}"


def _lines(file: Path, form: type[BaseModel]) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield form.model_validate(json.loads(line)).model_dump()
                except (ValueError, ValidationError) as exc:
                    raise TaskFileError(f"{file}, line {number}: {str(exc).splitlines()[0]}") from exc
    except OSError as exc:
        raise TaskFileError(f"cannot read {file}: {exc}; give a folder with WebShop's goals and products") from exc
