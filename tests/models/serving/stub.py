"""A server that answers as vLLM 0.33 does on the routes that concern adapters: its paths, bodies and status codes."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


def vllm(base="base", *, updating=True, api_key=None):
    """Build the app; `updating` is VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    loaded = {}

    def refuse(status, kind, message):
        return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)

    def card(name, root, parent=None):
        return {"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": root, "parent": parent}

    async def models(request):
        if api_key and request.headers.get("authorization") != f"Bearer {api_key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        found = [card(base, base) | {"max_model_len": 4096}]
        return JSONResponse({"object": "list", "data": found + [card(name, at, base) for name, at in loaded.items()]})

    async def load(request):
        asked = await request.json()
        name, path = asked["lora_name"], asked["lora_path"]
        if name in loaded and not asked.get("load_inplace", False):
            return refuse(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        if not (Path(path) / "adapter_config.json").is_file():
            return refuse(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        loaded[name] = path
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(request):
        name = (await request.json())["lora_name"]
        if name not in loaded:
            return refuse(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del loaded[name]
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def no_route(request, exc):
        return refuse(exc.status_code, "Not Found", exc.detail)

    routes = [Route("/v1/models", models)]
    if updating:
        routes += [
            Route("/v1/load_lora_adapter", load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={HTTPException: no_route})
