"""Break a web shop's action: another product, another option, bought too soon, what cannot be clicked."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmat_graph.flaws.flaw import Flaw, misspell
from cmat_graph.types import Category

BUY = "Buy Now"
BACK = "Back to Search"
_FORM = re.compile(r"(search|click)\[(.*)\]", re.DOTALL)
Broken = tuple[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopPage:
    """What stands on the page that an action is for."""

    products: Sequence[str] = ()
    """Ids of the products listed."""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Choices of the product shown, by their name."""
    search_bar: bool = False
    searches: Sequence[str] = ()
    """What others would search for; a wrong search is one of them."""


def break_shop(action: str, page: ShopPage, rng: random.Random) -> list[Flaw]:
    """Break an action in every way that the page offers, each once, in a random order.

    Example:
        >>> page = ShopPage(products=["b01", "b02"])
        >>> {flaw.name: flaw.broken for flaw in break_shop("click[b01]", page, random.Random(0))}["wrong product"]
        'click[b02]'

    """
    form = _FORM.fullmatch(action)
    if form is None:
        return []
    flaws = []
    for name in rng.sample(list(SHOP_FLAWS), len(SHOP_FLAWS)):
        found = SHOP_FLAWS[name](form[1], form[2], page, rng)
        if found is not None and found[0] != action:
            flaws.append(Flaw(name=name, broken=found[0], fixed=action, reason=found[1], category=_category(name)))
    return flaws


def _wrong_product(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    others = [each for each in page.products if each != what]
    if what not in page.products or not others:
        return None
    return f"click[{rng.choice(others)}]", "This product is not what the task asks for."


def _wrong_option(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    own = next((values for values in page.options.values() if what in values), ())
    others = [each for each in own if each != what]
    if not others:
        return None
    other = rng.choice(others)
    return f"click[{other}]", f"The task does not ask for {other}."


def _option_skipped(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    if not any(what in values for values in page.options.values()):
        return None
    return f"click[{BUY}]", f"It is bought without choosing {what}."


def _not_there(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    if kind != "click":
        return None
    other = f"click[{misspell(rng, what)}]"
    return other, f"`{other}` is not on the page."


def _searches_again(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    if kind != "click" or not page.searches:
        return None
    return f"search[{rng.choice(page.searches)}]", "There is no search bar on this page."


def _leaves(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    return (f"click[{BACK}]", "It leaves the product without buying it.") if what == BUY else None


def _wrong_words(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    others = [each for each in page.searches if each != what]
    if kind != "search" or not others:
        return None
    return f"search[{rng.choice(others)}]", "It searches for something else than the task asks for."


def _empty_search(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    return ("search[]", "The search has no words.") if kind == "search" else None


def _buys_first(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    return (f"click[{BUY}]", "Nothing was searched for yet.") if kind == "search" else None


def _wrong_form(kind: str, what: str, page: ShopPage, rng: random.Random) -> Broken:
    wrong = rng.choice((f"{kind} {what}", f"{kind}({what})", f"press[{what}]", what))
    return wrong, "The action has no known form."


SHOP_FLAWS: dict[str, Callable[[str, str, ShopPage, random.Random], Broken]] = {
    "wrong product": _wrong_product,
    "wrong option": _wrong_option,
    "option skipped": _option_skipped,
    "not on the page": _not_there,
    "searches instead of clicking": _searches_again,
    "leaves instead of buying": _leaves,
    "wrong words": _wrong_words,
    "empty search": _empty_search,
    "buys before searching": _buys_first,
    "wrong form": _wrong_form,
}
"""Each way to break an action, by its name. None where the page does not offer it."""
_ERRORS = ("not on the page", "searches instead of clicking", "empty search", "buys before searching")


def _category(name: str) -> Category:
    return "format" if name == "wrong form" else "error" if name in _ERRORS else "wrong"
