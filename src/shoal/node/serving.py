"""What `up` needs around the server: its part of the configuration, spans, and the meaning of signals."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, InvalidRequest, Unsupported
from shoal.core.service import Service
from shoal.node.audit_wishes import Wished, no_audits, read_policies, wishing
from shoal.node.compose import compose
from shoal.node.config import NO_MODEL, NodeConfig
from shoal.node.fleet import Fleet, with_upstreams
from shoal.node.receipts import name_alone, open_signing
from shoal.node.swarms import Here, with_swarms
from shoal.node.terminal import say
from shoal.server import ServerConfig
from shoal.think.cascade import Memory


@asynccontextmanager
async def serving(config: NodeConfig) -> AsyncIterator[Service]:
    """What `up` serves: the engine alone, or with everybody else it may ask."""
    async with AsyncExitStack() as stack:
        if wants_mesh(config):
            _claim(config, stack)
        if config.share_layers or config.split:
            from shoal.node.layers import check_layers

            check_layers(config, wants_mesh(config))
        policies = read_policies(config, wants_mesh(config))
        clock, local, identity, here, node = SystemClock(), None, name_alone, None, None
        if config.model != NO_MODEL:
            say(f"loading {config.model}")
            node = await stack.enter_async_context(compose(config))
            local, identity = node.service, node.identities.of
            here = Here(node.engine, node.language, node.engine.config.model)
        elif not config.upstreams and not wants_mesh(config):
            raise BadConfig("model", "none, and nobody else to ask: name an upstream or join a mesh")
        memory = Memory() if len(config.api_keys) <= 1 else None  # or one key's questions would show in another's times
        signing = stack.enter_context(open_signing(config, clock, identity))
        if local is not None and not config.upstreams and not wants_mesh(config):
            yield wishing(signing.service(with_swarms(local, here, memory=memory)), no_audits)
            return
        wished: Wished = no_audits
        fleet = await stack.enter_async_context(with_upstreams(Fleet(config, clock, local, signing=signing)))
        if wants_mesh(config):
            from shoal.node.meshing import meshing

            mesh = await stack.enter_async_context(meshing(config, fleet, clock))
            say(f"in the mesh as {mesh.parts.me.short}, sharing with: {_SHARING[mesh.sharing]}")
            say(f"others join with: shoal join {mesh.ticket()}")
            if node is not None:
                from shoal.node.checking import among_peers

                wished = await stack.enter_async_context(among_peers(policies, node, mesh, fleet))
            if config.share_layers or config.split:
                from shoal.node.layers import layers_among_peers

                await stack.enter_async_context(layers_among_peers(config, mesh, fleet, SystemClock()))
        yield wishing(signing.service(with_swarms(fleet.service(), here, memory=memory)), wished)


_SHARING = {
    "private": "nobody (--share changes that)",
    "listed": "the peers you named",
    "swarm": "whoever has the ticket",
    "public": "everybody",
}


def wants_mesh(config: NodeConfig) -> bool:
    """Whether anything in the configuration asks for peers."""
    return config.share or bool(config.tickets or config.serve_peers)


def _claim(config: NodeConfig, stack: AsyncExitStack) -> None:
    """What can be wrong about peers is said before a model is loaded for minutes. BadConfig."""
    from shoal.mesh.peer_id import PeerId
    from shoal.node.mesh_home import MeshHome, read_tickets

    def check(key: str, texts: Iterable[str], parse: Callable[[str], object]) -> None:
        for text in texts:
            try:
                parse(text)
            except InvalidRequest as error:
                raise BadConfig(key, str(error)) from None

    check("tickets", config.tickets, lambda text: read_tickets([text], time.time()))
    check("serve_peers", config.serve_peers, PeerId.parse)
    stack.enter_context(MeshHome(config.home).claimed())


def server_config(config: NodeConfig) -> ServerConfig:
    """The part of the configuration that is the server's."""
    return ServerConfig(
        api_keys=config.api_keys,
        cors_origins=config.cors_origins,
        allowed_hosts=config.allowed_hosts,
        max_body_bytes=config.max_body,
        request_timeout_s=config.request_timeout,
        adapter_loading=config.adapter_loading,
        log_format=config.log_format,
        otel=config.otel,
    )


def trace_to_exporter() -> None:
    """Send spans where OTEL_EXPORTER_OTLP_* says if that exporter is installed, else to stderr as JSON."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError:
        raise Unsupported("otel is set, but its library is missing: pip install 'shoal[otel]'") from None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    except ImportError:
        exporter = ConsoleSpanExporter(out=sys.stderr)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


@dataclass(slots=True)
class Stopping:
    """`event` is set by the first signal; `signal` says which it was."""

    event: asyncio.Event
    signal: signal.Signals | None = None


@contextmanager
def stopping() -> Iterator[Stopping]:
    """SIGINT and SIGTERM ask to stop; a second one cancels the running task, answers in progress with it."""
    loop, task, state = asyncio.get_running_loop(), asyncio.current_task(), Stopping(asyncio.Event())

    def on_signal(number: signal.Signals) -> None:
        if state.signal is not None and task is not None:
            task.cancel()
        state.signal = number
        state.event.set()

    kinds = (signal.SIGINT, signal.SIGTERM)
    for kind in kinds:
        loop.add_signal_handler(kind, on_signal, kind)
    try:
        yield state
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)
