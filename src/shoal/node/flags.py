"""Command-line flags. Those of configuration are made from its table, so that none differs from its key elsewhere."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, cast

import typer

from shoal.node.config import OPTIONS, NodeConfig, Option
from shoal.node.config_sources import load
from shoal.node.config_values import boolean, pairs, texts
from shoal.node.terminal import say

ENGINE = ("model", "adapters", "device", "kernels", "threads", "context_length", "block_size", "kv_type",
          "activation_bits", "kv_memory", "prefix_cache", "draft", "draft_memory", "draft_saved", "max_running",
          "max_batch_tokens")  # fmt: skip
"""Options of every command that computes in its own process."""

SERVER = ("host", "port", "max_waiting", "api_keys", "cors_origins", "allowed_hosts", "max_body", "request_timeout",
          "adapter_loading", "log_format", "otel", "receipts", "audit", "route", "upstreams", "upstream_keys",
          "upstream_prices", "location", "cooling", "pue", "power_price", "core_watts", "idle_watts")  # fmt: skip

MESH = ("share", "share_with", "serve_peers", "share_price", "share_requests", "share_tokens", "share_models",
        "share_layers", "split",
        "tickets", "mesh_host", "mesh_port", "relays", "relay_token", "lan")  # fmt: skip
"""Options of a node among peers."""

System = Annotated[str | None, typer.Option("--system", help="System prompt.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, max=2.0, help="0 is always the likeliest.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.01, max=1.0, help="Choose among the likeliest, of this mass.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same answer.")]
Url = Annotated[str | None, typer.Option("--url", help="Ask a running server instead of loading the model here.")]
UrlKey = Annotated[str | None, typer.Option("--url-key", help="Key for --url.")]


def configured(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each named option, and its first parameter the `Loaded` configuration."""
    options = [option for option in OPTIONS if option.name in (*names, "home")]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            flags = {option.name: arguments.pop(option.name) for option in options}
            loaded = load(flags, os.environ)
            for note in loaded.notes:
                say(note)
            command(loaded, **arguments)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, *(_parameter(option) for option in options)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del run.__wrapped__
        return run

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """A flag takes text, for `option.parse` to read; switches and lists are typer's own."""
    flag, kind, default = option.flag, cast(Any, str | None), cast(Any, None)
    if option.parse is boolean:
        flag, kind = f"{flag}/{option.off_flag or f'--no-{flag[2:]}'}", bool | None
    elif option.parse in (pairs, texts):
        kind, default = list[str], []
    declared = typer.Option(flag, help=option.help, show_default=_default(option))
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _default(option: Option) -> str | bool:
    """What the help says the default is; nothing for lists and for the home directory, which varies."""
    value = next(field.default for field in fields(NodeConfig) if field.name == option.name)
    if option.name == "home" or value == ():
        return False
    return "auto" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
