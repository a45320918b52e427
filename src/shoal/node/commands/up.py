"""`shoal up`: load a model and serve it."""

from __future__ import annotations

import asyncio
import signal

from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, SERVER, configured
from shoal.node.terminal import say


@configured(*ENGINE, *SERVER)
def up(loaded: Loaded) -> None:
    """Serve a model over an OpenAI-compatible API, with a web console. Pulls a known model that is missing."""
    asyncio.run(_up(loaded))


async def _up(loaded: Loaded) -> None:
    from shoal.node.compose import compose
    from shoal.node.fetch import ensure_model
    from shoal.node.serving import address, listen, log_to_stderr, serve, server_config, trace
    from shoal.server.app import create_app

    config = loaded.config
    log_to_stderr()
    if config.otel:
        trace()
    with listen(config.host, config.port) as bound:
        ensure_model(config)
        say(f"loading {config.model}")
        async with compose(config) as node:
            app = create_app(node.service, server_config(config))
            bound.listen(2048)  # clients queue from here on, so what is said next is true
            say(f"Shoal serves {node.service.models()[0].id} at {address(bound)} (console), {address(bound)}/v1 (API)")
            received = await serve(app, bound)
    if received == signal.SIGINT:
        raise KeyboardInterrupt
