"""How a machine is walled in: bubblewrap, else `unshare`, else not at all. Each is a command line around the keeper.

Of the host a machine sees `/usr` (without `/usr/local`), read-only, and nothing else: no home, no `/tmp`, no network,
no processes, no environment. Its root, `/usr` and `/etc` are file systems in memory of a fixed size. `/usr`, `/etc`,
`/lib` and `/lib64` are mount points, so nobody in the machine can put other programs or another loader in their place.
Whoever runs this as root gives that up first: a machine never holds the host's user 0.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmat_graph.envs.shell.keeper import Limits, Rights, begin
from cmat_graph.envs.shell.layout import PROTECTED
from cmat_graph.errors import ConfigurationError

Sandbox = Literal["auto", "bubblewrap", "unshare", "none"]
SANDBOXES: tuple[Sandbox, ...] = ("auto", "bubblewrap", "unshare", "none")
FIX = (
    "apt-get install bubblewrap (0.8 or newer) and allow unprivileged user namespaces; in a container of your own that "
    "may be thrown away, sandbox='none' runs commands without any wall"
)
NOBODY = 65534
"""Who a machine's processes are for the host where this runs as root."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ETC_MB, USR_MB = 4, 16
_CAPABILITIES = ("dac_override", "fowner", "fsetid", "setpcap")
"""What root in a machine can do to its own files; `setpcap` is the keeper's alone."""
_SETUP = Path(__file__).with_name("unshare.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """What the command line of a machine names."""

    keeper: int
    """The keeper's text."""
    info: int
    """bubblewrap tells the keeper's process id here."""
    seccomp: int | None


def rights(kind: Sandbox) -> Rights:
    """Tell what a machine of a kind can be kept from on this kernel."""
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    return Rights(setpriv=kind != "none", count_processes=kind != "none" and numbers >= [5, 14])


def command(kind: Sandbox, pipes: Descriptors, limits: Limits, *, uid: int, gid: int, host: str) -> list[str]:
    """Return the command line of a machine.

    Args:
        kind: Which wall; not `auto`.
        pipes: The descriptors that it names.
        limits: The sizes of its file systems.
        uid: The session's user id inside.
        gid: Its group id inside.
        host: The machine's name.

    """
    keeper = begin(pipes.keeper)
    if kind == "none":
        return ["setpriv", "--pdeathsig", "KILL", *keeper]
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"] if os.geteuid() == 0 else []
    if kind == "bubblewrap":
        return [*drop, *_bubblewrap(pipes, limits, uid=uid, gid=gid, host=host), *keeper]
    ids = [f"--map-user={uid}", f"--map-group={gid}", "--keep-caps"]
    spaces = ["--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=KILL"]
    setup = [_SETUP.read_text(), "bash", str(limits.disk_mb), str(limits.inodes), host, str(ETC_MB), str(USR_MB)]
    caps = ",".join(f"+{name}" for name in _CAPABILITIES)
    last = [f"--{each}=-all,{caps}" for each in ("inh-caps", "ambient-caps", "bounding-set")]
    inner = ["/usr/bin/setpriv", "--no-new-privs", *last, "--", *keeper]
    parent = [*drop[:-1], "--pdeathsig", "KILL", "--"] if drop else ["setpriv", "--pdeathsig", "KILL", "--"]
    return [*parent, "unshare", *ids, *spaces, "--", "/usr/bin/bash", "-c", *setup, *inner]


def _bubblewrap(pipes: Descriptors, limits: Limits, *, uid: int, gid: int, host: str) -> list[str]:
    words = "bwrap --unshare-user --unshare-all --disable-userns --as-pid-1 --die-with-parent --new-session --clearenv"
    call = [*words.split(), "--uid", str(uid), "--gid", str(gid), "--hostname", host, "--cap-drop", "ALL"]
    call += ["--info-fd", str(pipes.info)]
    if pipes.seccomp is not None:
        call += ["--seccomp", str(pipes.seccomp)]
    for name in _CAPABILITIES:
        call += ["--cap-add", f"CAP_{name.upper()}"]
    for place, size in (("/", limits.disk_mb), ("/usr", USR_MB), ("/etc", ETC_MB)):
        call += ["--perms", "0755", "--size", str(size * 2**20), "--tmpfs", place]
    for source, target in _shown():
        call += ["--ro-bind", source, target]
    for name, target in _links():
        call += ["--symlink", target, name]
    call += ["--proc", "/proc", "--dir", "/dev"]
    for name in DEVICES:
        call += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        call += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    return [*call, "--"]


@functools.cache
def _shown() -> tuple[tuple[str, str], ...]:
    """List what of the host is mounted read-only, and where: the folders of `/usr`, the libraries, parts of `/etc`."""
    shown = [(entry.path, entry.path) for entry in sorted(os.scandir("/usr"), key=lambda each: each.name)
             if entry.name != "local" and entry.is_dir(follow_symlinks=False)]  # fmt: skip
    for name in ("lib", "lib32", "lib64", "libx32"):
        if os.path.isdir(f"/{name}"):
            shown.append((os.path.realpath(f"/{name}"), f"/{name}"))
    for name in ("bin", "sbin"):
        if not os.path.islink(f"/{name}"):
            shown.append((f"/{name}", f"/{name}"))
    for name in PROTECTED:
        source = f"/etc/{name}"
        if name == "ld.so.preload":
            source = "/dev/null"
        if os.path.exists(source):
            shown.append((source, f"/etc/{name}"))
    return tuple(shown)


@functools.cache
def _links() -> tuple[tuple[str, str], ...]:
    found = [(f"/{name}", os.readlink(f"/{name}")) for name in ("bin", "sbin") if os.path.islink(f"/{name}")]
    return (*found, ("/var/run", "/run"))


def lacks(kind: Sandbox) -> str:
    """Say which programs a kind of wall lacks here; empty when it has all."""
    needed = {"bubblewrap": "bwrap setpriv tar bash", "unshare": "unshare setpriv tar bash mount pivot_root"}
    missing = [name for name in needed.get(kind, "setpriv tar bash").split() if _which(name) is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    return _old_bubblewrap() if kind == "bubblewrap" else ""


@functools.cache
def _old_bubblewrap() -> str:
    said = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False).stdout
    missing = [option for option in ("--size", "--disable-userns", "--as-pid-1", "--clearenv") if option not in said]
    return f"this bubblewrap has no {missing[0]}; 0.8 or newer is needed" if missing else ""


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")


def known(kind: str) -> Sandbox:
    """Return a kind of wall by its name.

    Raises:
        ConfigurationError: There is none of that name.

    """
    for each in SANDBOXES:
        if each == kind:
            return each
    raise ConfigurationError(f"unknown sandbox {kind!r}; known: {', '.join(SANDBOXES)}")
