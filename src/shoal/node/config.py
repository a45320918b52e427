"""The one configuration of a node: defaults < profile < file < environment < flags; see `config_sources`.

Every option here can be written in the file as `name = value`, in the environment as `SHOAL_NAME`, and where a
command takes it, as `--name`. An option that nothing reads has no place in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoal.models.catalogue import DEFAULT_MODEL
from shoal.node import config_values as values

Device = Literal["auto", "cpu", "cuda"]
Kernels = Literal["auto", "native", "torch"]
KvType = Literal["f32", "f16", "int8"]
LogFormat = Literal["text", "json", "off"]
ReceiptPolicy = Literal["always", "asked", "off"]
Route = Literal["auto", "local"]
ShareWith = Literal["swarm", "public"]


NO_MODEL = "none"
"""As `model`: this node computes nothing itself, it asks others."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Sizes are bytes, lengths are tokens, times are seconds. None: Shoal chooses (written `auto`)."""

    home: Path
    model: str = DEFAULT_MODEL
    adapters: tuple[tuple[str, str], ...] = ()
    device: Device = "auto"
    kernels: Kernels = "auto"
    threads: int | None = None
    context_length: int | None = None
    block_size: int = 16
    kv_type: KvType | None = None
    activation_bits: Literal[8, 16] | None = None
    kv_memory: int | None = None
    prefix_cache: bool = True
    draft: str = "auto"
    draft_memory: int = 64 * 2**20
    draft_saved: bool = False
    max_running: int = 32
    max_waiting: int = 256
    max_batch_tokens: int = 512
    host: str = "127.0.0.1"
    port: int = 8642
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_body: int = 8 * 2**20
    request_timeout: float | None = None
    adapter_loading: bool = False
    log_format: LogFormat = "text"
    otel: bool = False
    receipts: ReceiptPolicy = "asked"
    audit: tuple[str, ...] = ()
    share: bool = False
    share_with: ShareWith = "swarm"
    serve_peers: tuple[str, ...] = ()
    share_price: float = 0.0
    share_requests: int = 4
    share_tokens: int = 60_000
    share_models: tuple[str, ...] = ()
    share_layers: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    tickets: tuple[str, ...] = ()
    mesh_host: str = "0.0.0.0"  # noqa: S104  peers are elsewhere; every link is authenticated, and serving needs consent
    mesh_port: int | None = None
    relays: tuple[str, ...] = ()
    relay_token: str | None = None
    lan: bool = True
    route: Route = "auto"
    upstreams: tuple[tuple[str, str], ...] = ()
    upstream_keys: tuple[tuple[str, str], ...] = ()
    upstream_prices: tuple[tuple[str, str], ...] = ()
    location: str | None = None
    cooling: Literal["none", "tower"] = "none"
    pue: float = 1.0
    power_price: float | None = None
    core_watts: float | None = None
    idle_watts: float | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One field of NodeConfig. `parse` takes a string (environment, flag) or a TOML value; ValueError if unusable.

    flag  what it is called on the command line; a list is given there one by one, so its flag is in the singular.
    off_flag  what turns a switch off; "" for --no- and its name.
    """

    name: str
    parse: Callable[[Any], Any]
    help: str
    flag: str
    off_flag: str = ""
    is_secret: bool = False


OPTIONS = (
    Option("home", values.path, "where models and compiled kernels are kept", "--home"),
    Option("model", values.text, "catalogue name, stored name, GGUF file or folder; none: only ask others", "--model"),
    Option("adapters", values.pairs, "LoRA adapter as name=folder", "--adapter"),
    Option("device", values.choice("auto", "cpu", "cuda"), "auto, cpu or cuda", "--device"),
    Option("kernels", values.choice("auto", "native", "torch"), "auto, native (C) or torch", "--kernels"),
    Option("threads", values.optional(values.integer(1, 4096)), "CPU threads; auto: one per core", "--threads"),
    Option(
        "context_length",
        values.optional(values.integer(16, 2**24)),
        "tokens; auto: the model's own",
        "--context-length",
    ),
    Option("block_size", values.integer(1, 1024), "tokens in one block of the KV cache", "--block-size"),
    Option(
        "kv_type",
        values.optional(values.choice("f32", "f16", "int8")),
        "KV cache of the C kernels: f32, f16, or int8 (half the memory, a little less precise)",
        "--kv-type",
    ),
    Option(
        "activation_bits",
        values.optional(values.one_of(8, 16)),
        "precision of the C kernels' products: 8 (fastest) or 16 (as float32)",
        "--activation-bits",
    ),
    Option(
        "kv_memory",
        values.optional(values.size(1 << 20)),
        'size of the KV cache, a draft model\'s included, as "2GiB"; auto: by memory',
        "--kv-memory",
    ),
    Option("prefix_cache", values.boolean, "reuse the cache of prompts that begin alike", "--prefix-cache"),
    Option(
        "draft",
        values.drafter,
        "guess tokens ahead, changes no answer: auto, off, lookup, suffix, learned, or model:, hybrid:, learned:NAME",
        "--draft",
    ),
    Option("draft_memory", values.size(1 << 20), "memory for past answers that drafts are made of", "--draft-memory"),
    Option("draft_saved", values.boolean, "keep past answers on disk for drafts after a restart", "--draft-saved"),
    Option("max_running", values.integer(1, 4096), "requests computed at once", "--max-running"),
    Option("max_waiting", values.integer(0, 1_000_000), "requests queued before new ones get 429", "--max-waiting"),
    Option("max_batch_tokens", values.integer(1, 1_000_000), "tokens in one forward step", "--max-batch-tokens"),
    Option("host", values.text, "address to listen on; 0.0.0.0 for all", "--host"),
    Option("port", values.integer(0, 65535), "port to listen on; 0: any free one", "--port"),
    Option(
        "api_keys", values.texts, "keys of which clients must send one; none: no check", "--api-key", is_secret=True
    ),
    Option("cors_origins", values.texts, "web origins that may call from a browser", "--cors-origin"),
    Option(
        "allowed_hosts", values.texts, "extra names clients may call this server by (Host header)", "--allowed-host"
    ),
    Option("max_body", values.size(1024), 'largest request body, as "4MB"', "--max-body"),
    Option(
        "request_timeout",
        values.optional(values.duration),
        "longest time for an answer, as 5min; auto: no limit",
        "--request-timeout",
    ),
    Option("adapter_loading", values.boolean, "clients may load LoRA adapters from folders here", "--adapter-loading"),
    Option(
        "log_format", values.choice("text", "json", "off"), "one line per request: text, json or off", "--log-format"
    ),
    Option("otel", values.boolean, "export OpenTelemetry traces (needs the otel extra)", "--otel"),
    Option(
        "receipts",
        values.choice("always", "asked", "off"),
        "sign answers: always, asked (where a request says so) or off",
        "--receipts",
    ),
    Option(
        "audit",
        values.texts,
        "check a share of peers' answers in idle time, as fingerprint:0.05 or distribution:0.01",
        "--audit",
    ),
    Option(
        "share", values.boolean, "let peers use this machine's model; --private is the default", "--share", "--private"
    ),
    Option(
        "share_with",
        values.choice("swarm", "public"),
        "who is served: swarm (holders of its ticket) or public (everybody)",
        "--share-with",
    ),
    Option("serve_peers", values.texts, "id of a peer that is served in any case", "--serve-peer"),
    Option("share_price", values.price, "US dollars asked for a million tokens", "--share-price"),
    Option("share_requests", values.integer(1, 4096), "requests of one peer at once", "--share-requests"),
    Option("share_tokens", values.integer(1, 10**12), "tokens a minute for one peer", "--share-tokens"),
    Option(
        "share_models",
        values.texts,
        "stored model whose weights peers may copy, beside the known ones",
        "--share-model",
    ),
    Option(
        "share_layers",
        values.texts,
        "layers of a model to compute for peers that split it, as MODEL:FIRST-END",
        "--share-layers",
    ),
    Option(
        "split",
        values.texts,
        "serve private:MODEL with its first A and last B layers here and the rest at peers, as MODEL:A+B",
        "--split",
    ),
    Option("tickets", values.texts, "ticket of a mesh to join, or @FILE with it", "--ticket", is_secret=True),
    Option("mesh_host", values.text, "address to listen on for peers, UDP and TCP; 0.0.0.0 for all", "--mesh-host"),
    Option(
        "mesh_port",
        values.optional(values.integer(0, 65535)),
        "port for peers, UDP and TCP; 0: any free one; auto: that of last time",
        "--mesh-port",
    ),
    Option("relays", values.texts, "URL of a relay, for peers that cannot connect directly", "--relay"),
    Option(
        "relay_token",
        values.optional(values.text),
        "what the relays ask for; auto: nothing",
        "--relay-token",
        is_secret=True,
    ),
    Option("lan", values.boolean, "find peers of the swarm on the local network", "--lan"),
    Option(
        "route",
        values.choice("auto", "local"),
        "who answers: auto (the quickest of engine, peers, upstreams) or local (others only for models not here)",
        "--route",
    ),
    Option(
        "upstreams",
        values.pairs,
        "server to ask too, as NAME=KIND+URL; KIND: vllm, sglang, llamacpp, ollama or openai",
        "--upstream",
    ),
    Option("upstream_keys", values.pairs, "key of an upstream, as NAME=KEY", "--upstream-key", is_secret=True),
    Option("upstream_prices", values.pairs, "US dollars for a million tokens, as NAME=PRICE", "--upstream-price"),
    Option(
        "location", values.optional(values.text), "country this machine is in, as NG; for water, carbon", "--location"
    ),
    Option("cooling", values.choice("none", "tower"), "tower: water evaporates here to cool it; or none", "--cooling"),
    Option("pue", values.number(1.0, 10.0), "power of the whole site over that of its computers", "--pue"),
    Option("power_price", values.optional(values.price), "US dollars you pay for a kWh", "--power-price"),
    Option(
        "core_watts",
        values.optional(values.number(0.1, 1000.0)),
        "watts of one busy core, where no counter can be read; auto: 7, give or take 60 %",
        "--core-watts",
    ),
    Option(
        "idle_watts",
        values.optional(values.number(0.0, 100_000.0)),
        "watts of the idle machine, where no counter can be read; auto: left out",
        "--idle-watts",
    ),
)
"""In the order of the fields, checked by a test."""
