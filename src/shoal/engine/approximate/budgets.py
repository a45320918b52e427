"""What a request may leave out: its wish becomes a sequence's first stage, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shoal.core.errors import InvalidRequest, Unsupported
from shoal.core.request import Approximation as Wish
from shoal.core.request import Request
from shoal.engine.approximate.approximator import after_prompt, num_lookahead_blocks
from shoal.engine.approximate.core_neurons import MAX_ROWS
from shoal.engine.approximate.lookahead import LOOKAHEAD
from shoal.engine.approximate.passes import blocks_for
from shoal.engine.approximate.runner import Approximation
from shoal.engine.approximate.selection import PROMPT_WINDOW
from shoal.engine.approximate.stage import Stage

MIN_KV_BUDGET = 16
MIN_PROMPT_BUDGET = PROMPT_WINDOW

PROMPT_LAYERS = (1, 3)
"""Share of the layers that the draft of SpecPC is: the target's first ones, so that the draft costs a third."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """approximation: the runner's, or None. num_blocks of block_size: its cache."""

    approximation: Approximation | None
    num_blocks: int
    block_size: int

    def stage(self, request: Request, num_prompt: int) -> Stage | None:
        """How a prompt of `num_prompt` tokens begins; None where nothing is left out. InvalidRequest."""
        wish = request.approximation
        if wish is None or (wish.kv_budget, wish.prompt_budget, wish.core_neurons) == (None, None, None):
            return None
        self._check(wish, request)
        if wish.prompt_budget is not None and wish.prompt_budget < num_prompt:
            return self._shortened(wish, num_prompt)
        stage = after_prompt(Stage(wish, num_prompt), num_prompt)
        if stage is not None:
            self._check_room(wish, num_prompt)
        return stage

    def _shortened(self, wish: Wish, num_prompt: int) -> Stage:
        """The draft's pass over the whole prompt; what comes then is decided when the prompt is short."""
        part, whole = PROMPT_LAYERS
        network, budget = self._network("prompt_budget"), wish.prompt_budget or num_prompt
        depth = max(1, network.num_layers * part // whole)
        _refuse_unsupported(lambda: network.check_depth(depth), "prompt_budget")
        reads = wish.prompt_method == "specpc"  # the others need no draft: it stops after one token
        stage = Stage(wish, num_prompt if reads else 1, depth=depth)
        self._check_blocks(num_prompt, PROMPT_WINDOW, "prompt_budget")
        if after_prompt(stage, budget) is not None:
            self._check_room(wish, budget)
        return stage

    def _check(self, wish: Wish, request: Request) -> None:
        if wish.kv_budget is not None:
            _check_least("kv_budget", wish.kv_budget, MIN_KV_BUDGET)
            _refuse_unsupported(self._network("kv_budget").check_positions, "kv_budget")
        if wish.prompt_budget is not None:
            _check_least("prompt_budget", wish.prompt_budget, MIN_PROMPT_BUDGET)
            self._network("prompt_budget")
        if wish.core_neurons is not None:
            network = self._network("core_neurons")
            if not 0 < wish.core_neurons < 1:
                raise InvalidRequest(
                    f"core_neurons: expected a share in (0, 1), found {wish.core_neurons}", "core_neurons"
                )
            if request.adapter is not None:
                raise InvalidRequest(
                    "core_neurons: an adapter's changes cannot be sliced; leave one away", "core_neurons"
                )
            _refuse_unsupported(network.check_neurons, "core_neurons")

    def _network(self, param: str) -> Approximation:
        if self.approximation is None:
            raise InvalidRequest(f"{param}: these kernels cannot approximate; use the native ones on the CPU", param)
        return self.approximation

    def _check_room(self, wish: Wish, num_tokens: int) -> None:
        """The whole cache holds what acting on one sequence takes."""
        if wish.core_neurons is not None:
            self._check_blocks(num_tokens, MAX_ROWS, "core_neurons")
        if wish.kv_budget is not None and wish.kv_budget < num_tokens:
            ahead = num_lookahead_blocks(num_tokens, LOOKAHEAD, self.block_size) * self.block_size
            self._check_blocks(num_tokens, wish.kv_budget, "kv_budget", ahead)

    def _check_blocks(self, num_tokens: int, spare: int, param: str, more: int = 0) -> None:
        needed = sum(blocks_for(count, self.block_size) for count in (num_tokens, spare, more))
        if needed > self.num_blocks:
            raise InvalidRequest(
                f"{param}: a prompt of {num_tokens} tokens needs {needed} blocks of the cache while it is cut down, "
                f"which has {self.num_blocks}; give a larger kv_memory, or a shorter prompt",
                param,
            )


def _check_least(param: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidRequest(f"{param}: expected at least {least} tokens, found {value}", param)


def _refuse_unsupported(check: Callable[[], None], param: str) -> None:
    try:
        check()
    except Unsupported as error:
        raise InvalidRequest(f"{param}: {error}", param) from error
