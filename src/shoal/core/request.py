"""What is asked: an immutable `Request`, whole before anybody works on it.

A request carries either messages (the model's chat template applies), text, or token ids. Every field has an
effect or the layer that cannot honour it raises `InvalidRequest` naming it; nothing is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shoal.core.decoding import ORDERED

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call the model made earlier in the conversation; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON Schema object, in the order the model shall read it."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict, metadata=ORDERED)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`auto`: the model decides. `none`: no call. `required`: some call. `named`: a call of `name`."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Constraint:
    """A language the output must belong to; `value` is a JSON Schema, a regular expression or a Lark grammar.

    param  the parameter it came in, which a refusal names; no part of the language, so no part of equality.
    """

    kind: Literal["json_schema", "regex", "lark"]
    value: str
    param: str = field(default="response_format", compare=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The defaults are the OpenAI API's: plain sampling at temperature 1.

    temperature       0 is greedy; otherwise logits are divided by it.
    top_k             keep the k most likely tokens; 0 keeps all.
    top_p, min_p      nucleus mass in (0, 1]; floor relative to the most likely token in [0, 1].
    repetition_penalty  divides positive and multiplies negative logits of tokens in prompt or output (CTRL).
    frequency_penalty, presence_penalty  subtracted per occurrence / once for tokens in the output.
    logit_bias        token id -> value added to its logit.
    seed              same request, same seed, same answer, alone or in any batch; None draws one.
    stop              strings that end the answer; not part of it.
    stop_token_ids    token ids that end the answer, besides the model's own end tokens.
    ignore_eos        do not end at the model's end tokens.
    min_tokens        end tokens and stop strings have no effect before this many tokens.
    max_tokens        None means up to the model's context.
    logprobs          None: none. k >= 0: the chosen token's log-probability and the k most likely ones.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    max_tokens: int | None = None
    logprobs: int | None = None


KvMethod = Literal["speckv", "snapkv", "streaming", "random", "oracle"]
PromptMethod = Literal["specpc", "streaming", "random"]


@dataclass(frozen=True, slots=True)
class Approximation:
    """Cheaper and not the same: what may be left out. None leaves nothing out; a budget that holds all changes nothing.

    kv_budget      cached keys and values that stay, per layer and head, once the prompt is computed (tokens).
    kv_method      which: those that a drafted lookahead attends to (speckv, arXiv 2506.08373), that the prompt's end
                   attends to (snapkv), the first few and the latest (streaming), any (random), or those that the
                   model's own continuation attends to (oracle: a bound, not a saving).
    prompt_budget  tokens of the prompt that are computed in full; the rest are seen by the draft alone.
    prompt_method  which: those that the draft attends to (specpc), the first few and the latest, or any.
    core_neurons   share of each layer's feed-forward neurons that the answer is computed with, in (0, 1): those most
                   active over the prompt (CoreInfer, arXiv 2410.18311).
    """

    kv_budget: int | None = None
    kv_method: KvMethod = "speckv"
    prompt_budget: int | None = None
    prompt_method: PromptMethod = "specpc"
    core_neurons: float | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """An answer that somebody else began: the engine goes on behind `tokens` as if it had made them.

    tokens  ids of the answer so far, up to the end of a chunk that was delivered.
    text    the answer so far as it was shown. Where there are no ids (an upstream that sends text alone) it is all that
            is known; where there are, they count. Neither: the choice begins here.
    count   tokens that `text` took, as far as known: whoever counts by text alone takes them off the limit.
    choice  which of the original request's choices this is; its chunks carry this index. The original's seed must be
            set, and then sampling goes on as it would have there.
    """

    tokens: tuple[int, ...] = ()
    choice: int = 0
    text: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, `n` answers.

    request_id   unique among those in flight; chosen by whoever accepts the request.
    model        a served model's name; `adapter` a loaded LoRA adapter's name or None.
    prompt       messages, text (no template) or token ids.
    tools        only with messages.
    constraint   grammar for the output; excludes tools whose choice is `required` or `named`.
    echo         repeat the prompt in front of the answer (`/v1/completions`), not with messages.
    priority     lower runs first; equal priorities are first come, first served.
    deadline     absolute, on the monotonic clock of the machine that holds this object, in seconds; None: no limit.
    receipt      attach a `Receipt` to the last chunk.
    audit        how the answer is to be checked if a peer makes it: TIER, TIER:RATE, or what a wrong answer would cost
                 (low, medium, high); empty: as the node was told. Never sent to whoever answers.
    approximation  what may be left out to save time or memory; None: nothing.
    resume       go on with an answer begun elsewhere, one choice at a time (n = 1); nothing of it is repeated, but
                 limits, penalties, stop strings and usage count it.
    """

    request_id: str
    model: str
    prompt: tuple[Message, ...] | str | tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    constraint: Constraint | None = None
    adapter: str | None = None
    echo: bool = False
    priority: int = 0
    deadline: float | None = None
    receipt: bool = False
    audit: str = ""
    approximation: Approximation | None = None
    resume: Resume | None = None
