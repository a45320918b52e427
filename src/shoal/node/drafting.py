"""The drafter a configuration asks for: what `draft = ...` means.

`auto` is suffix decoding where the C kernels compute, for it is never much slower there (bench/speculation.py) and
cannot change an answer, and nothing elsewhere: torch's results depend in their last bits on which rows share a step.
`learned` chooses for each request by what requests like it gave here, and tries the others within a budget.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace

from shoal.core.clock import SystemClock
from shoal.core.errors import Unsupported
from shoal.engine.drafts.chosen import ChosenDrafter
from shoal.engine.drafts.draft import Drafter
from shoal.engine.drafts.hybrid import HybridDrafter
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.drafts.model import ModelDrafter, check_same_vocabulary
from shoal.engine.drafts.suffix import SuffixConfig, SuffixDrafter
from shoal.engine.load import Loaded, RunnerOptions, load_runner
from shoal.models.checkpoint import open_checkpoint
from shoal.models.config import ModelConfig
from shoal.models.store import Store
from shoal.models.tokenizer import Tokenizer, load_tokenizer
from shoal.node.choosing import LearnedJudge
from shoal.node.config import NodeConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What drafts are for. `fingerprint` changes with the weights: other weights answer otherwise.

    draft_kv_memory  of a draft model's cache, in bytes; None: as load_runner finds right.
    """

    name: str
    fingerprint: str
    tokenizer: Tokenizer
    loaded: Loaded
    options: RunnerOptions
    draft_kv_memory: int | None = None


def split_kv_memory(config: NodeConfig, target: ModelConfig) -> tuple[int | None, int | None]:
    """`kv_memory` for the target and for the draft model, if there is one: in shares by which both hold as many tokens.

    None for what is not limited. Raises what opening the draft model raises.
    """
    _, _, name = config.draft.partition(":")
    if config.kv_memory is None or not name:
        return config.kv_memory, None
    draft = open_checkpoint(Store(config.home).resolve(name)).config
    ours, theirs = (item.num_layers * item.num_kv_heads * item.head_dim for item in (target, draft))
    for_target = config.kv_memory * ours // (ours + theirs)
    return for_target, config.kv_memory - for_target


def make_drafter(config: NodeConfig, target: Target) -> Drafter | None:
    """BadConfig for a draft model that does not fit, Unsupported where suffix trees cannot be built."""
    kind, _, model = config.draft.partition(":")
    if kind == "auto":
        return _automatic(config, target)
    if kind == "lookup":
        return LookupDrafter()
    if kind == "learned":
        return _learned(config, target, model)
    if kind == "suffix":
        return _suffix(config, target)
    if kind == "model":
        return _model(config, target, model)
    if kind == "hybrid":
        return HybridDrafter(_suffix(config, target), _model(config, target, model))
    return None


def _automatic(config: NodeConfig, target: Target) -> Drafter | None:
    if not target.loaded.kernels.startswith("native"):
        return None
    try:
        return _suffix(config, target)
    except Unsupported as error:
        _log.warning("no drafting: %s", error)
        return None


def _learned(config: NodeConfig, target: Target, model: str) -> ChosenDrafter:
    """Nothing, lookup, suffix trees, and the draft model where one is named."""
    drafters: dict[str, Drafter | None] = {"suffix": _suffix(config, target), "lookup": LookupDrafter(), "off": None}
    if model:
        drafters["model"] = _model(config, target, model)
    key = hashlib.sha256(repr((target.fingerprint, target.loaded.kernels, config.threads, model)).encode())
    file = config.home / "drafts" / f"choices-{key.hexdigest()[:16]}.jsonl"
    return ChosenDrafter(drafters, LearnedJudge(tuple(drafters), "suffix", file), SystemClock())


def _suffix(config: NodeConfig, target: Target) -> SuffixDrafter:
    return SuffixDrafter(
        SuffixConfig(
            memory=config.draft_memory,
            file=config.home / "drafts" / f"{target.name}.bin" if config.draft_saved else None,
            fingerprint=target.fingerprint,
            vocab_size=target.loaded.runner.vocab_size,
            kernel_cache=target.options.kernel_cache,
        )
    )


def _model(config: NodeConfig, target: Target, name: str) -> ModelDrafter:
    checkpoint = open_checkpoint(Store(config.home).resolve(name))
    check_same_vocabulary(target.tokenizer, load_tokenizer(checkpoint.tokenizer))
    context = min(target.loaded.context_length, checkpoint.config.context_length)
    options = replace(target.options, context_length=context, kv_memory=target.draft_kv_memory, max_adapters=1)
    loaded = load_runner(checkpoint, options)
    return ModelDrafter(name, loaded.runner, SystemClock(), context, config.max_running)
