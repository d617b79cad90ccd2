"""`cmat-graph serve`: base and adapters over an OpenAI-compatible API."""

from __future__ import annotations

import os

import click

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.cli import print_json
from cmat_graph.cli.shared import console, json_option
from cmat_graph.models.serving.adapters import LocalAdapters


@click.command("serve")
@click.argument("base", default="nano")
@click.option("--adapter", "names", multiple=True, help="Adapter to load at the start; others load when asked for.")
@click.option("--adapters", "root", default="adapters", show_default=True, help="Adapter registry.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="CMAT_API_KEY", show_envvar=True, help="What clients must show.")
@click.option("--dtype", help="Torch dtype of the weights, such as bfloat16.")
@click.option("--max-rows", type=click.IntRange(1), default=128, show_default=True, help="Replies written together.")
@click.option("--max-replies", type=click.IntRange(1), default=256, show_default=True, help="Replies taken on at most.")
@json_option()
def command(
    *,
    base: str,
    names: tuple[str, ...],
    root: str,
    host: str,
    port: int,
    api_key: str | None,
    dtype: str | None,
    max_rows: int,
    max_replies: int,
    as_json: bool,
) -> None:
    """Serve a base (nano, a model folder, a hub id) and its adapters to OpenAI clients, until stopped.

    Clients choose by `model`: the base's name, an adapter's node/name, or a node for its promoted adapter. Give the
    key in CMAT_API_KEY rather than here, where others on the machine can read it.

    \b
    Examples:
      cmat-graph serve nano --adapters adapters/
      CMAT_API_KEY=... cmat-graph serve Qwen/Qwen3-0.6B --adapter assistant --host 0.0.0.0
    """
    from cmat_graph.models.chat_model import TinyAgent
    from cmat_graph.models.engine import Engine, EngineSettings
    from cmat_graph.models.serving.app import create_app
    from cmat_graph.models.serving.running import listen, serve, url_of

    registry = AdapterRegistry(root)
    cards = [registry.get(name) for name in names]
    with listen(host, port, api_key=api_key) as sock:  # before the model: a taken port is told at once
        engine = Engine(base, dtype=dtype, settings=EngineSettings(max_rows=max_rows))
        agent = TinyAgent(model=base, engine=engine)
        served = LocalAdapters(engine)
        loaded = [served.load(card) for card in cards]
        app = create_app(agent, registry=registry, api_key=api_key, max_replies=max_replies)
        url = f"{url_of(sock)}/v1"
        if as_json:
            print_json({"url": url, "pid": os.getpid(), "base": app.state.base, "adapters": loaded})
        else:
            _say(url, app.state.base, loaded, keyed=bool(api_key))
        serve(app, sock)
    console.print("stopped")


def _say(url: str, base: str, loaded: list[str], *, keyed: bool) -> None:
    key = 'os.environ["CMAT_API_KEY"]' if keyed else '"none"'
    console.print(
        f"{base} answers at {url}, {', '.join(loaded) or 'no adapter'} loaded. Use it from Python:\n\n"
        f"  from langchain_openai import ChatOpenAI\n"
        f'  model = ChatOpenAI(base_url="{url}", api_key={key}, model="{[base, *loaded][-1]}")\n\n'
        f"Stop it with Ctrl-C.",
        soft_wrap=True,
    )
