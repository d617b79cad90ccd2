"""Web navigation: Mind2Web's protocol on recordings of MiniWoB++, on Mind2Web's own files, and on live pages."""

from __future__ import annotations

from collections.abc import Sequence

from cmat_graph.envs.web.env import WebEnv, WebSession
from cmat_graph.envs.web.generated import generate_tasks
from cmat_graph.envs.web.page import PAGE_CHARS
from cmat_graph.envs.web.reading import read_web
from cmat_graph.errors import ConfigurationError


def open_env(
    tasks: str = "builtin",
    *,
    data: str | None = None,
    seed: int = 7,
    size: int = 512,
    pages: str | Sequence[str] = "",
    page_chars: int | str = PAGE_CHARS,
    browsers: int | str = 4,
) -> WebEnv:
    """Open web tasks.

    Args:
        tasks: A file or folder with recordings of MiniWoB++ or with Mind2Web's JSON; `"builtin"`: generated pages,
            three quarters the `train` split, the rest `test`; `"live"`: MiniWoB++ pages in a headless Chromium.
        data: Not needed: a task brings its pages.
        seed: Seed of the built-in tasks; of live ones the first seed of each page.
        size: How many of them to make.
        pages: Live only: names of MiniWoB++ pages, such as `click-button,login-user`.
        page_chars: How much of a page a question shows, about.
        browsers: Live only: how many browsers run at once.

    """
    page_chars, browsers = _number(page_chars), _number(browsers)
    if tasks == "live":
        from cmat_graph.envs.web.live import LiveWebEnv

        names = pages.split(",") if isinstance(pages, str) else pages
        return LiveWebEnv(
            [name.strip() for name in names if name.strip()],
            seed=seed,
            size=size,
            page_chars=page_chars,
            browsers=browsers,
        )
    if tasks == "builtin":
        return WebEnv(generate_tasks(size, seed=seed), source="builtin", page_chars=page_chars)
    source, found = read_web(tasks)
    return WebEnv(found, source=source, page_chars=page_chars)


def _number(given: int | str) -> int:
    """Read an option that a command line gives as text."""
    try:
        number = int(given)
    except (ValueError, TypeError):
        number = 0
    if number < 1:
        raise ConfigurationError(f"page_chars and browsers are whole numbers of 1 or more, not {given!r}")
    return number


__all__ = ["WebEnv", "WebSession", "generate_tasks", "open_env", "read_web"]
