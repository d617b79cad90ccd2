"""The errors this project raises, and nothing else.

    CmatError
    ├── ConfigurationError (ValueError)        arguments that cannot work together
    ├── TaskFileError (ValueError)             a task file that cannot be read, with its line
    ├── ModelNotFoundError (LookupError)       an unknown model, base or provider
    ├── AdapterNotFoundError (LookupError)     an unknown adapter
    ├── AdapterMismatchError (ValueError)      an adapter for another base
    ├── UnsupportedAdapterError (ValueError)   an adapter of a kind or size that the engine does not run
    ├── TraceStoreError (OSError)              a trace database that cannot be read or written
    ├── MemoryStoreError (OSError)             a lesson store that cannot be opened, read or written
    ├── EmbeddingMismatchError (ValueError)    vectors of another embedding than the store's
    ├── EpisodeFailure                         what ends one episode, and says nothing about the next
    │   ├── EnvironmentFailure (RuntimeError)  the environment itself broke (not: a bad action)
    │   ├── PromptTooLongError (ValueError)    a prompt that fills the model's window
    │   ├── EngineBusyError (TimeoutError)     the engine's queue stayed full
    │   ├── EngineError (RuntimeError)         the engine could not answer: out of memory, not a number, closed
    │   └── ServerError (OSError)              a model server that is away, or refuses
    ├── EmptyHarvestError (ValueError)         nothing in the traces is worth training on
    ├── DatasetError (ValueError)              a dataset or an import that cannot be read
    ├── LeakError (ValueError)                 tasks of an evaluation in the training data
    ├── TrainingError (RuntimeError)           training broke off; what was saved last is kept
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


class UnsupportedAdapterError(CmatError, ValueError):
    """An adapter of a kind or size that the engine does not run."""


class TraceStoreError(CmatError, OSError):
    """A trace database that cannot be read or written."""


class MemoryStoreError(CmatError, OSError):
    """A lesson store that cannot be opened, read or written."""


class EmbeddingMismatchError(CmatError, ValueError):
    """Vectors of another embedding than those a store holds."""


class EpisodeFailure(CmatError):
    """What ends one episode, and says nothing about the next: a run goes on with it counted as failed."""


class EnvironmentFailure(EpisodeFailure, RuntimeError):
    """The environment itself broke."""


class PromptTooLongError(EpisodeFailure, ValueError):
    """A prompt that fills the model's window."""


class EngineBusyError(EpisodeFailure, TimeoutError):
    """The engine's queue stayed full."""


class EngineError(EpisodeFailure, RuntimeError):
    """The engine could not answer a request."""


class ServerError(EpisodeFailure, OSError):
    """A model server that is away, or refuses."""


class EmptyHarvestError(CmatError, ValueError):
    """Nothing in the traces is worth training on."""


class DatasetError(CmatError, ValueError):
    """A dataset, or a file to import, that cannot be read."""


class LeakError(CmatError, ValueError):
    """Tasks of an evaluation in the training data."""


class TrainingError(CmatError, RuntimeError):
    """Training broke off; what was saved last is kept."""


class MissingExtraError(CmatError, ImportError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, extra: str, cause: ImportError) -> MissingExtraError:
        """Name the extra that brings what is missing."""
        return cls(f'{cause.name or cause} is not installed; fix: pip install "cmat-graph[{extra}]"')
