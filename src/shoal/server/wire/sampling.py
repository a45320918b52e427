"""Fields every generating endpoint has: OpenAI's, the extras of vLLM, and Shoal's budgets. See `core.request`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from shoal.core.errors import InvalidRequest
from shoal.core.request import Approximation, Constraint, KvMethod, PromptMethod, Sampling
from shoal.server.wire.base import TokenIds, Wire

Penalty = Annotated[float, Field(ge=-2, le=2)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Budget = Annotated[int, Field(ge=1, lt=2**31)]
Schema = dict[str, Any]


class StructuredOutputs(Wire):
    """vLLM's: exactly one of these."""

    json_: Schema | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=1024)] | None = None
    json_object: bool | None = None


class SamplingFields(Wire):
    """`user` and `metadata` go into the request's log line, and nowhere else."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(fail_fast=True, max_length=16)] | None = None
    stop_token_ids: Annotated[TokenIds, Field(max_length=128)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    kv_budget: Budget | None = None
    kv_method: KvMethod | None = None
    prompt_budget: Budget | None = None
    prompt_method: PromptMethod | None = None
    core_neurons: Annotated[float, Field(gt=0, lt=1)] | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=1024)] | None = None
    structured_outputs: StructuredOutputs | None = None
    stream: bool | None = None
    receipt: bool | None = None
    audit: Annotated[str, Field(max_length=64)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """InvalidRequest where two fields contradict each other."""
        if max_tokens is not None and (self.min_tokens or 0) > max_tokens:
            raise InvalidRequest(f"min_tokens is {self.min_tokens}, more than {max_tokens} tokens", "min_tokens")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            temperature=_or(self.temperature, 1.0),
            top_k=max(0, self.top_k or 0),
            top_p=_or(self.top_p, 1.0),
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            logit_bias={int(token): value for token, value in (self.logit_bias or {}).items()},
            seed=self.seed,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            min_tokens=self.min_tokens or 0,
            max_tokens=max_tokens,
            logprobs=logprobs,
        )

    def approximation(self) -> Approximation | None:
        """What may be left out, if anything. InvalidRequest for a method without its budget."""
        for what in ("kv", "prompt"):
            if getattr(self, f"{what}_method") is not None and getattr(self, f"{what}_budget") is None:
                raise InvalidRequest(f"{what}_method needs {what}_budget", f"{what}_method")
        if self.kv_budget is None and self.prompt_budget is None and self.core_neurons is None:
            return None
        return Approximation(
            kv_budget=self.kv_budget,
            kv_method=self.kv_method or "speckv",
            prompt_budget=self.prompt_budget,
            prompt_method=self.prompt_method or "specpc",
            core_neurons=self.core_neurons,
        )

    def constraint(self, response_format: Constraint | None = None) -> Constraint | None:
        """The one language asked for, if any. InvalidRequest for two."""
        asked = [(response_format.param, response_format)] if response_format else []
        asked += [("guided_json", _json_schema(self.guided_json))] if self.guided_json is not None else []
        asked += [("guided_regex", Constraint("regex", self.guided_regex))] if self.guided_regex is not None else []
        asked += (
            [("guided_grammar", Constraint("lark", self.guided_grammar))] if self.guided_grammar is not None else []
        )
        asked += [("guided_choice", one_of(self.guided_choice))] if self.guided_choice is not None else []
        asked += _structured(self.structured_outputs) if self.structured_outputs is not None else []
        if len(asked) > 1:
            raise InvalidRequest(f"{asked[0][0]} and {asked[1][0]} exclude each other", asked[1][0])
        return replace(asked[0][1], param=asked[0][0]) if asked else None


ANY_OBJECT = Constraint("json_schema", '{"type":"object"}')
"""`response_format: json_object`."""


def one_of(choices: list[str]) -> Constraint:
    """Lark strings are written as JSON strings are."""
    return Constraint("lark", "start: " + " | ".join(json.dumps(choice) for choice in choices))


def _json_schema(schema: Schema | str) -> Constraint:
    return Constraint("json_schema", schema if isinstance(schema, str) else json.dumps(schema))


def _structured(asked: StructuredOutputs) -> list[tuple[str, Constraint]]:
    found: list[tuple[str, Constraint]] = []
    if asked.json_ is not None:
        found.append(("structured_outputs.json", _json_schema(asked.json_)))
    if asked.regex is not None:
        found.append(("structured_outputs.regex", Constraint("regex", asked.regex)))
    if asked.grammar is not None:
        found.append(("structured_outputs.grammar", Constraint("lark", asked.grammar)))
    if asked.choice is not None:
        found.append(("structured_outputs.choice", one_of(asked.choice)))
    if asked.json_object:
        found.append(("structured_outputs.json_object", ANY_OBJECT))
    if not found:
        raise InvalidRequest("expected one of json, regex, grammar, choice, json_object", "structured_outputs")
    return found


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
