"""Run an app on a port until it is told to stop."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

try:
    import uvicorn
except ImportError as exc:
    from cmat_graph.errors import MissingExtraError

    raise MissingExtraError.of("serve", exc) from exc

from cmat_graph.errors import ConfigurationError, ServerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LOCAL = ("localhost", "127.0.0.1", "::1")
LAST_SECONDS = 20
"""How long requests under way may go on after the server was told to stop."""


def listen(host: str, port: int, *, api_key: str | None = None) -> socket.socket:
    """Open a port; clients may connect from now on, and wait until the server runs.

    Raises:
        ConfigurationError: Other machines would reach it, and there is no key.
        ServerError: The port is taken, or not ours to take.

    """
    if not api_key and host not in LOCAL:
        raise ConfigurationError(
            f"whoever reaches {host} could use the models; set a key in CMAT_API_KEY, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as exc:
        raise ServerError(f"cannot listen on {host}:{port}: {exc}; choose another with --port, 0 for any") from exc


def url_of(sock: socket.socket) -> str:
    """Return the address of an open port as clients write it."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(app: ASGIApp, sock: socket.socket) -> None:
    """Serve an app on an open port until SIGINT or SIGTERM; then let requests under way finish, and return."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    # uvicorn raises the signal once more when it is done; nothing is left to stop then
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[sock])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
