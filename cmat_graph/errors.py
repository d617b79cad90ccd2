"""The errors this project raises, and nothing else.

    CmatError
    ├── ConfigurationError (ValueError)        arguments that cannot work together
    ├── TaskFileError (ValueError)             a task file that cannot be read, with its line
    ├── ModelNotFoundError (LookupError)       an unknown model, base or provider
    ├── AdapterNotFoundError (LookupError)     an unknown adapter
    ├── AdapterMismatchError (ValueError)      an adapter for another base
    ├── TraceStoreError (OSError)              a trace database that cannot be read or written
    ├── MemoryStoreError (OSError)             a lesson store that cannot be opened, read or written
    ├── EmbeddingMismatchError (ValueError)    vectors of another embedding than the store's
    ├── EnvironmentFailure (RuntimeError)      the environment itself broke (not: a bad action)
    ├── EmptyHarvestError (ValueError)         nothing in the traces is worth training on
    └── MissingExtraError (ImportError)        an optional package is not installed

A failed task is data (an `Episode`); a broken tool is one of these. Each message names the fix.
"""

from __future__ import annotations


class CmatError(Exception):
    """Base of every error raised on purpose by cmat-graph."""


class ConfigurationError(CmatError, ValueError):
    """Arguments that cannot work together."""


class TaskFileError(CmatError, ValueError):
    """A task file that cannot be read."""


class ModelNotFoundError(CmatError, LookupError):
    """An unknown model, base or provider."""


class AdapterNotFoundError(CmatError, LookupError):
    """An unknown adapter."""


class AdapterMismatchError(CmatError, ValueError):
    """An adapter that was trained on another base."""


class TraceStoreError(CmatError, OSError):
    """A trace database that cannot be read or written."""


class MemoryStoreError(CmatError, OSError):
    """A lesson store that cannot be opened, read or written."""


class EmbeddingMismatchError(CmatError, ValueError):
    """Vectors of another embedding than those a store holds."""


class EnvironmentFailure(CmatError, RuntimeError):
    """The environment itself broke."""


class EmptyHarvestError(CmatError, ValueError):
    """Nothing in the traces is worth training on."""


class MissingExtraError(CmatError, ImportError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, extra: str, cause: ImportError) -> MissingExtraError:
        """Name the extra that brings what is missing."""
        return cls(f'{cause.name or cause} is not installed; fix: pip install "cmat-graph[{extra}]"')
