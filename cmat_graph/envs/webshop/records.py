"""The shop's records, as `products.jsonl` and `goals.jsonl` hold them, and how they are read."""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cmat_graph.envs.files import find_beside, read_lines
from cmat_graph.errors import TaskFileError

PRICE = 100.0
"""What a product without a price costs, in dollars; WebShop's."""
_AMOUNT = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_SPLITS = {"train": "train", "test": "test", "std": "test", "dev": "validation", "val": "validation",
           "valid": "validation", "validation": "validation"}  # fmt: skip


def one_line(text: str, limit: int = 500) -> str:
    """Return a text that comes from a file as one line without control characters, cut at `limit` characters."""
    if len(text) > 4 * limit:
        text = text[: 4 * limit]
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _amounts(value: object) -> list[float]:
    """Read a price as WebShop's files write it: a number, a text, a range, or nothing."""
    if isinstance(value, list | tuple):
        return sorted(amount for each in value[:2] for amount in _amounts(each))
    if isinstance(value, str):
        return sorted(amount for found in _AMOUNT.findall(value)[:2] for amount in _amounts(_number(found)))
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return [float(value)]
    return []


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _texts(value: object) -> list[str]:
    """Read a list of texts; one text is a list of one, and what is no text becomes one."""
    many = value if isinstance(value, list | tuple) else [value]
    return [str(each) for each in many if each not in (None, "")]


def _choices(value: object) -> dict[str, list[str]]:
    """Read a product's options; a name without values is none."""
    if not isinstance(value, dict):
        return {}
    return {str(name): texts for name, values in value.items() if (texts := _texts(values))}


def _wanted(value: object) -> list[tuple[str, str]]:
    """Read a goal's options: by name, or values alone where people wrote the goal."""
    if isinstance(value, dict):
        return [(str(name), text) for name, values in value.items() for text in _texts(values)]
    if isinstance(value, list) and all(isinstance(each, tuple) for each in value):  # from Python, read before
        return [(str(name), str(text)) for name, text in value]
    return [("", text) for text in _texts(value)]


Form = TypeVar("Form", bound=BaseModel)
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Texts = Annotated[list[str], BeforeValidator(_texts)]


class Product(BaseModel):
    """A line of `products.jsonl`: what anyone sees in the shop. Nothing in it is trusted."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    asin: str = Field(min_length=1)
    name: Text = ""
    category: Text = ""
    query: Text = ""
    product_category: Text = ""
    """A path, with ` › ` between its parts."""
    price: Annotated[list[float], BeforeValidator(_amounts)] = []
    """Dollars: one number, or the lowest and the highest."""
    options: Annotated[dict[str, list[str]], BeforeValidator(_choices)] = {}
    attributes: Texts = []
    """Phrases mined from the product's texts."""
    text_attributes: Texts = []
    """Attribute phrases that stand in texts which the file leaves out."""
    terms: Texts = []
    """Words of the name and of those texts; for the search alone."""
    description: Text = ""
    """The product's own texts, where a file has them; `features` are the bullet points."""
    features: Texts = []

    @property
    def cost(self) -> float:
        """What it is bought for: its lowest price. Upstream draws one in the range and sets the goal's limit above."""
        return self.price[0] if self.price else PRICE


class Goal(BaseModel):
    """A line of `goals.jsonl`. Only `instruction_text` is for the assistant; the rest is gold."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    id: str = Field(min_length=1)
    asin: str = ""
    instruction_text: str = Field(min_length=1)
    kind: Text = "synthetic"
    """`synthetic` (made from a product by a pattern) or `human` (written by a person)."""
    split: Text = ""
    name: Text = ""
    category: Text = ""
    query: Text = ""
    product_category: Text = ""
    attributes: Texts = []
    goal_options: Annotated[list[tuple[str, str]], BeforeValidator(_wanted)] = []
    """Name and value of each option; no name where the file has values alone."""
    price_upper: Annotated[float | None, Field(allow_inf_nan=False)] = None
    """Dollars; None is no limit."""


def read_shop(
    tasks: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None
) -> tuple[list[Goal], list[Product]]:
    """Read a file of goals, and `products.jsonl` beside it or in `data`.

    A goal's split is its own `split`, else the one that the file's name tells (`train.jsonl`), else drawn from its
    product's hash (`split_of`), alike for goals that are worded alike: the published split goes by places in a list
    that this file is only a part of.

    Raises:
        TaskFileError: A file is missing, empty or malformed; the message names the line.

    """
    split = next((_SPLITS[word] for word in re.split(r"[^a-z]+", Path(tasks).name.lower()) if word in _SPLITS), "")
    goals: dict[str, Goal] = {}
    for where, record in read_lines(tasks):
        goal = _read(Goal, where, record)
        if goal.id in goals:
            raise TaskFileError(f"{where}: a second goal with id {goal.id!r}; give each its own")
        goals[goal.id] = goal.model_copy(update={"split": goal.split or split})
    if not goals:
        raise TaskFileError(f"task file {os.fspath(tasks)} holds no goals")
    products: dict[str, Product] = {}
    shelf = _shelf(tasks, data)
    for where, record in read_lines(shelf):
        product = _read(Product, where, record)
        products.setdefault(product.asin, product)  # the first counts, as upstream
    if not products:
        raise TaskFileError(f"{shelf} holds no products")
    return with_splits(goals.values()), list(products.values())


def _shelf(tasks: str | os.PathLike[str], data: str | os.PathLike[str] | None) -> Path:
    try:
        return find_beside(tasks, "products.jsonl", data=data)
    except TaskFileError:
        with suppress(TaskFileError):
            return find_beside(tasks, "products.jsonl.gz", data=data)
        raise


def with_splits(goals: Collection[Goal]) -> list[Goal]:
    """Give each goal without a split one, by its product's hash; of goals worded alike one in `test` draws the others.

    So no text that is trained on is measured on.
    """
    tested = {goal.instruction_text for goal in goals if (goal.split or split_of(goal)) == "test"}
    drawn = {goal.id: "test" if goal.instruction_text in tested else "train" for goal in goals}
    return [goal if goal.split else goal.model_copy(update={"split": drawn[goal.id]}) for goal in goals]


def split_of(goal: Goal) -> str:
    """Return `test` for all goals of a quarter of the products, whatever the file's order; else `train`."""
    number = int(hashlib.sha256(f"shop-test:{goal.asin}".encode(errors="replace")).hexdigest()[:8], 16)
    return "test" if number % 4 == 0 else "train"


def _read(form: type[Form], where: str, record: dict[str, Any]) -> Form:
    try:
        return form.model_validate(record)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(map(str, first["loc"])) or "record"
        raise TaskFileError(f"{where}: {field}: {first['msg']}") from exc
