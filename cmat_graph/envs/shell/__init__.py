"""Shell tasks in a sandbox of their own: AgentBench's "OS"."""

from __future__ import annotations

from cmat_graph.envs.shell.env import ShellEnv, ShellSession
from cmat_graph.envs.shell.generated import generate_records
from cmat_graph.envs.shell.keeper import Limits
from cmat_graph.envs.shell.records import read_records
from cmat_graph.errors import ConfigurationError


def open_env(
    tasks: str = "builtin",
    *,
    data: str | None = None,
    seed: int = 7,
    size: int = 512,
    sandbox: str = "auto",
    seconds: float | str = 30.0,
    memory_mb: int | str = 512,
    disk_mb: int | str = 128,
) -> ShellEnv:
    """Open shell tasks.

    Args:
        tasks: A JSONL file of states and checks, or `"builtin"`: three quarters are the `train` split, the rest `test`.
        data: Not needed: each task brings its files.
        seed: Seed of the built-in tasks.
        size: How many of them to make.
        sandbox: `auto` takes bubblewrap, else unshare; or one of these by name. `none` runs commands on this very
            machine with your rights: for a container of your own that may be thrown away.
        seconds: Wall time of one command.
        memory_mb: Memory of one session, all its processes together.
        disk_mb: Its disk, which lies in memory too.

    """
    try:
        limits = Limits(seconds=float(seconds), memory_mb=int(memory_mb), disk_mb=int(disk_mb))
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(f"seconds, memory_mb and disk_mb are numbers: {exc}") from exc
    if not (0 < limits.seconds <= 3600 and 64 <= limits.memory_mb <= 2**20 and 8 <= limits.disk_mb <= 2**20):
        raise ConfigurationError("use 0 < seconds <= 3600, memory_mb of 64 or more, and disk_mb of 8 or more")
    records = generate_records(size, seed=seed) if tasks == "builtin" else read_records(tasks)
    return ShellEnv(records, sandbox=sandbox, limits=limits)


__all__ = ["Limits", "ShellEnv", "ShellSession", "generate_records", "open_env", "read_records"]
