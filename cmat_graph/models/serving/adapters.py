"""Load and unload adapters where they are served: in this process, or on a server with vLLM's routes."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from cmat_graph.adapters import AdapterCard
from cmat_graph.errors import AdapterNotFoundError, ServerError

if TYPE_CHECKING:
    from cmat_graph.models.decoding.rows import LoadedAdapter

_SLOW = httpx.Timeout(120.0, connect=5.0)
"""Loading a large adapter takes a while; noticing that nobody is there must not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAdapter:
    """An adapter that answers now."""

    name: str
    """What calls give as `model`."""
    base: str
    folder: str
    """Where its files lie, as the server tells it."""


class AdapterServer(Protocol):
    """Something that serves adapters on one base, and can change them while it runs."""

    def load(self, card: AdapterCard, *, name: str = "") -> str:
        """Serve an adapter under a name (its id, unless given), in place of what had that name; return the name."""

    def unload(self, name: str) -> None:
        """Serve it no longer."""

    def list(self) -> list[ServedAdapter]:
        """Return what is served."""


class AdapterEngine(Protocol):
    """What `LocalAdapters` needs of an engine."""

    base: str

    def load_adapter(self, card: AdapterCard, *, name: str = "") -> str:
        """Load an adapter, let `name` mean it from now on, and return its key."""

    def unload_adapter(self, name: str) -> None:
        """Forget a name."""

    def adapters(self) -> Sequence[LoadedAdapter]:
        """Return what is loaded."""


class LocalAdapters:
    """The adapters of an engine in this process.

    Example:
        >>> served = LocalAdapters(TinyAgent.load("nano").engine)  # doctest: +SKIP
        >>> served.load(AdapterRegistry().get("assistant"), name="assistant")  # doctest: +SKIP
        'assistant'

    """

    def __init__(self, engine: AdapterEngine) -> None:
        self._engine = engine

    def load(self, card: AdapterCard, *, name: str = "") -> str:
        """Serve an adapter under a name (its id, unless given), in place of what had that name.

        Requests under way finish on what they began with.

        Raises:
            AdapterNotFoundError: Its files cannot be read.
            AdapterMismatchError: It was trained on another base.

        """
        name = name or card.id
        self._engine.load_adapter(card, name=name)
        return name

    def unload(self, name: str) -> None:
        """Serve it no longer.

        Raises:
            AdapterNotFoundError: Nothing of that name is served.

        """
        self._engine.unload_adapter(name)

    def list(self) -> list[ServedAdapter]:
        """Return what is served."""
        loaded = [each for each in self._engine.adapters() if each.name != each.key]  # those are models' own
        return [ServedAdapter(name=each.name, base=self._engine.base, folder=each.card.folder) for each in loaded]


class VLLMAdapters:
    """The adapters of a server: `vllm serve BASE --enable-lora`, or `cmat-graph serve`, which has the same routes.

    vLLM loads adapters at run time only with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1` in its environment.

    Args:
        url: The server, such as `http://gpu:8000`.
        api_key: Its key, if it wants one.
        root: The registry's folder as the server sees it; without it, the card's own folder (same machine).

    Example:
        >>> served = VLLMAdapters("http://gpu:8000", root="/srv/adapters")
        >>> served.load(AdapterRegistry().get("assistant"), name="assistant")  # doctest: +SKIP
        'assistant'

    """

    def __init__(self, url: str, *, api_key: str | None = None, root: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._root = root

    def load(self, card: AdapterCard, *, name: str = "") -> str:
        """Serve an adapter under a name (its id, unless given), in place of what had that name.

        Raises:
            AdapterNotFoundError: The server does not find its files.
            ServerError: The server is away, or refuses.

        """
        name = name or card.id
        at = str(Path(card.folder).resolve()) if self._root is None else self._in_root(card, self._root)
        self._call("POST", "load_lora_adapter", {"lora_name": name, "lora_path": at, "load_inplace": True})
        return name

    def unload(self, name: str) -> None:
        """Serve it no longer.

        Raises:
            AdapterNotFoundError: Nothing of that name is served.
            ServerError: The server is away, or refuses.

        """
        self._call("POST", "unload_lora_adapter", {"lora_name": name})

    def list(self) -> builtins.list[ServedAdapter]:
        """Return what is served.

        Raises:
            ServerError: The server is away, or refuses.

        """
        reply = self._call("GET", "models")
        try:
            # `loaded` is our own server's: it also lists what its registry holds
            found = [each for each in reply.json()["data"] if each.get("parent") and each.get("loaded", True)]
            return [ServedAdapter(name=each["id"], base=each["parent"], folder=each["root"] or "") for each in found]
        except (ValueError, LookupError, TypeError, AttributeError) as exc:
            raise ServerError(f"{self.url}/v1/models is no list of models; is that a vLLM server?") from exc

    @staticmethod
    def _in_root(card: AdapterCard, root: str) -> str:
        return str(PurePosixPath(root, card.node, card.name))

    def _call(self, method: str, route: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            reply = httpx.request(method, f"{self.url}/v1/{route}", json=body, headers=self._headers, timeout=_SLOW)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ServerError(
                f"no answer from {self.url}: {exc}; start it with: vllm serve BASE --enable-lora, or: cmat-graph serve"
            ) from exc
        if reply.is_success:
            return reply
        said = _message(reply)
        if reply.status_code == 404 and said != "Not Found":
            raise AdapterNotFoundError(f"{self.url}: {said}")
        if reply.status_code == 404:  # there is no such route
            said = "no such route; start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
        elif reply.status_code == 401:
            said = f"{said} (give api_key)"
        raise ServerError(f"{self.url} refused {route} ({reply.status_code}): {said}")


def _message(reply: httpx.Response) -> str:
    """Return what an error says: OpenAI's error object, FastAPI's `detail`, or else the first of the text."""
    try:
        body = reply.json()
        error = body.get("error", body.get("detail"))
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, AttributeError):
        return reply.text[:200]
