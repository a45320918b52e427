"""`shoal up`: load a model and serve it."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

from shoal.node.config import NO_MODEL, NodeConfig
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, MESH, SERVER, configured
from shoal.node.terminal import say


@configured(*ENGINE, *SERVER, *MESH)
def up(loaded: Loaded) -> None:
    """Serve a model over an OpenAI-compatible API, with a web console. Pulls a known model that is missing."""
    run(loaded.config)


def run(config: NodeConfig) -> None:
    """Until a signal comes; KeyboardInterrupt if it was Ctrl-C."""
    from shoal.node.fetch import ensure_model
    from shoal.node.serving import trace_to_exporter
    from shoal.server import listen, log_to_stderr

    listen(config.host, config.port).close()  # better now than after a long download
    if config.model != NO_MODEL:
        ensure_model(config)
    if config.split or config.share_layers:
        from shoal.models.store import Store
        from shoal.node.layers import wished_models

        for name in wished_models(config):
            ensure_model(replace(config, model=name))
            Store(config.home).resolve(name)  # said now, and not when the mesh has been joined
    log_to_stderr()
    if config.otel:
        trace_to_exporter()
    try:
        stopped_by = asyncio.run(_up(config))
    except asyncio.CancelledError:  # by a second signal
        raise KeyboardInterrupt from None
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


async def _up(config: NodeConfig) -> signal.Signals | None:
    """Serve until a signal comes, and return it."""
    from shoal.node.serving import server_config, serving, stopping
    from shoal.server import ServeOptions, create_app, listen, serve

    async with serving(config) as service:
        app = create_app(service, server_config(config))
        models = service.models()
        name = models[0].id if models else "what others have"
        with stopping() as state:
            await serve(
                app,
                listen(config.host, config.port),
                ServeOptions(handles_signals=False),
                state.event,
                lambda url: say(f"serving {name} at {url} (console) and {url}/v1 (API); Ctrl-C stops"),
            )
        return state.signal
