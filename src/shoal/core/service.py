"""What a server may ask besides `Generate`: plain data and plain callables, so that a fake takes three lines.

`Service` is not a third seam: nothing nests it. The node builds one for its server out of what it composed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.core.errors import InvalidRequest
from shoal.core.receipt_view import Receipts
from shoal.core.request import Message
from shoal.core.seams import Generate

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One line of `/v1/models`. An adapter is a model whose `parent` is its base model."""

    id: str
    created: int = 0
    owned_by: str = "shoal"
    parent: str | None = None
    context_length: int | None = None
    family: str | None = None
    quantization: str | None = None
    size_bytes: int | None = None
    capabilities: tuple[str, ...] = ()
    """Of "completion", "chat", "tools", "embedding"."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Counters (`*_total`) only grow; the rest are gauges."""

    device: str = ""
    kernels: str = ""
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 0
    max_waiting: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    block_size: int = 0
    steps_total: int = 0
    batch_tokens: int = 0
    """Tokens in the last step."""
    batch_sequences: int = 0
    """Sequences in the last step."""
    step_s: float = 0.0
    """Duration of the last step."""
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    generation_tokens_total: int = 0
    preemptions_total: int = 0
    drafter: str = ""
    """What guesses tokens ahead, or nothing."""
    draft_checks_total: int = 0
    """Drafts checked: each made one token more than it had right."""
    draft_tokens_total: int = 0
    draft_accepted_total: int = 0
    choices: Mapping[str, int] = field(default_factory=dict)
    """Where a drafter is chosen for each request: method, and how often it was."""
    choice_why: str = ""
    """The last choice and its reason, in words."""
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class PeerView:
    """What is known of one peer, for people and metrics. Times are seconds, sizes bytes; None: not known.

    state    connected, connecting, waiting (to try again), known (no link now) or gone.
    path     direct, punched, relayed, or nothing while not connected.
    steps    of the last attempt to connect, in order, each with how it ended.
    throughput_bps  bytes a second, both ways, while anything was sent last.
    running, waiting, seats  its own word on its load.
    given, received  tokens this node made for it, and it for this node.
    """

    id: str
    state: str
    carrier: str = ""
    path: str = ""
    remote: str = ""
    connected_s: float | None = None
    rtt_s: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    throughput_bps: float | None = None
    agent: str = ""
    models: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0
    seats: int = 0
    price_usd_per_mtok: float = 0.0
    given: int = 0
    received: int = 0
    failure: str = ""
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecisionView:
    """Who was asked for one answer, why, and how it ended. Several of one request: it moved on."""

    request_id: str
    provider: str
    why: str
    outcome: str
    num_tokens: int
    at: float


@dataclass(frozen=True, slots=True)
class TransferView:
    """A blob on its way. `size_bytes` is 0 until it is known.

    num_peers  that send it, or take it.
    direction  down: it comes here; up: a peer takes it.
    rate_bps   bytes a second lately.
    peers      their ids, the first few.
    outcome    nothing while it runs; then done, cancelled, stopped (a peer asks no more) or "failed: why".
    """

    name: str
    done_bytes: int
    size_bytes: int
    num_peers: int
    direction: str = "down"
    rate_bps: float = 0.0
    peers: tuple[str, ...] = ()
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class MeshView:
    """This node among its peers. `nat` in words; `sharing` says who is served here. Latest decisions last.

    asked  "peer answered", "local failed", ...: a provider's kind and how it ended -> how often since the start.
    transfers_ended    "down done", "up stopped", ...: direction and outcome -> how often since the start.
    transferred_bytes  direction -> bytes of blobs since the start.
    """

    id: str
    sharing: str
    nat: str = ""
    addresses: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    peers: tuple[PeerView, ...] = ()
    decisions: tuple[DecisionView, ...] = ()
    transfers: tuple[TransferView, ...] = ()
    asked: Mapping[str, int] = field(default_factory=dict)
    transfers_ended: Mapping[str, int] = field(default_factory=dict)
    transferred_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PingView:
    """What came of asking a peer now: round trips in seconds, or why there were none. `peer` as it is afterwards."""

    peer: PeerView
    rtts_s: tuple[float, ...] = ()
    failure: str = ""


async def no_mesh(peer: str) -> PingView:
    """`Service.ping` of a node alone."""
    raise InvalidRequest("this node is in no mesh; start it with --share, or with shoal join", "peer")


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the HTTP server talks to. Callables raise `ShoalError`s, as `generate` does.

    generate       the composed `Generate`.
    models         served models and loaded adapters, default model first.
    stats          a fresh snapshot.
    not_ready      None when requests are accepted, else the reason in words.
    tokenize       (model, text or messages, add special tokens) -> token ids.
    detokenize     (model, token ids) -> text.
    embed          (model, inputs as text or token ids) -> float32 array (len(inputs), dimensions), L2-normalised,
                   and the number of tokens read.
    load_adapter   (name, path) -> its card; unload_adapter (name).
    receipts       what can be asked about receipts; None: this server knows none.
    composed       (name) -> the card of a model that is not listed but can be made of those that are, such as
                   "swarm:a,b"; None for other names. ModelNotFound, InvalidRequest for one that cannot.
    mesh           a fresh view of the mesh; None from it while this node is in none.
    ping           (peer id) -> round trips to it, connecting first where needed.
    """

    generate: Generate
    models: Callable[[], Sequence[ModelCard]]
    stats: Callable[[], EngineStats]
    not_ready: Callable[[], str | None]
    tokenize: Callable[[str, str | tuple[Message, ...], bool], Awaitable[list[int]]]
    detokenize: Callable[[str, Sequence[int]], Awaitable[str]]
    embed: Callable[[str, Sequence[str | tuple[int, ...]]], Awaitable[tuple[np.ndarray, int]]]
    load_adapter: Callable[[str, str], Awaitable[ModelCard]]
    unload_adapter: Callable[[str], Awaitable[None]]
    receipts: Receipts | None = None
    composed: Callable[[str], ModelCard | None] = lambda name: None
    mesh: Callable[[], MeshView | None] = lambda: None
    ping: Callable[[str], Awaitable[PingView]] = no_mesh
