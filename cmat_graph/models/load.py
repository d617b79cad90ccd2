"""Open a chat model by its name, as the command line gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.errors import ConfigurationError, MissingExtraError, ModelNotFoundError
from cmat_graph.models.expert import ExpertChatModel


def load_model(
    name: str,
    *,
    adapter: AdapterCard | str | None = None,
    adapters: AdapterRegistry | None = None,
    demonstrations: Callable[[], Mapping[str, Sequence[str]]] | None = None,
    **settings: Any,
) -> BaseChatModel:
    """Open a chat model.

    Args:
        name: `expert` (plays the gold), `nano` (the bundled small model), a model folder or hub id, or
            `provider:model` for LangChain's `init_chat_model`.
        adapter: Card or name of an adapter to put on a local base.
        adapters: Where adapters lie.
        demonstrations: Gold replies for the expert.
        **settings: Passed to the model, such as `temperature`.

    Raises:
        ConfigurationError: A setting is out of range.
        ModelNotFoundError: The name is unknown.
        MissingExtraError: The packages for this kind of model are not installed.

    """
    if name == "expert":
        if demonstrations is None or adapter is not None:
            raise ConfigurationError("the expert plays gold replies; it needs an environment and takes no adapter")
        gold = demonstrations()
        if not gold:
            raise ConfigurationError("nobody knows the solutions of these tasks, so the expert cannot play them")
        return ExpertChatModel(demonstrations=gold)
    if ":" in name and not Path(name).exists():
        if adapter is not None:
            raise ConfigurationError(f"an adapter needs a local base, not {name!r}")
        return _load_provider(name, settings)
    try:
        module = import_module("cmat_graph.models.chat_model")
    except ImportError as exc:
        raise exc if isinstance(exc, MissingExtraError) else MissingExtraError.of("local", exc) from exc
    try:
        model: BaseChatModel = module.TinyAgent.load(
            name, adapter=adapter, adapters=adapters or AdapterRegistry(), **settings
        )
    except ValidationError as exc:
        raise ConfigurationError("; ".join(error["msg"] for error in exc.errors())) from exc
    return model


def _load_provider(name: str, settings: dict[str, Any]) -> BaseChatModel:
    try:
        chat_models = import_module("langchain.chat_models")
    except ImportError as exc:
        raise MissingExtraError.of("agents", exc) from exc
    try:
        model: BaseChatModel = chat_models.init_chat_model(name, **settings)
    except ImportError as exc:  # LangChain's own words name the package
        raise MissingExtraError(str(exc).splitlines()[0]) from exc
    except Exception as exc:  # each provider has errors of its own here: unknown model, no API key
        raise ModelNotFoundError(f"cannot open {name!r}: {str(exc).splitlines()[0]}") from exc
    return model
