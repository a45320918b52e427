"""`Language` of a real checkpoint: its tokenizer, chat template, tool format and grammars."""

from __future__ import annotations

from functools import cached_property

from shoal.core.errors import InvalidRequest
from shoal.core.request import Message, Request, Tool
from shoal.engine.answer import Answer
from shoal.engine.constraint import Grammars, Matcher
from shoal.models.checkpoint import Checkpoint
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import Tokenizer, load_tokenizer
from shoal.models.tools import ToolFormat


class ModelLanguage:
    """Safe to call from several threads: nothing changes after construction but caches of equal values."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(checkpoint.tokenizer)
        self.tools = ToolFormat.detect(checkpoint.chat_template, self.tokenizer)
        self.template = ChatTemplate(
            checkpoint.chat_template, self.tokenizer, native_tools=self.tools.kind != "generic"
        )

    @property
    def eos_ids(self) -> frozenset[int]:
        return self.tokenizer.eos_ids

    @cached_property
    def grammars(self) -> Grammars:
        """Built at the first constraint: about 0.1 s per 50,000 tokens."""
        return Grammars(self.tokenizer)

    def prompt(self, request: Request) -> list[int]:
        """Token ids of messages (with template and tools), text, or the ids given.

        Text gets the begin token where the model wants one, and never becomes another control token. InvalidRequest
        for an empty prompt and for ids the vocabulary lacks.
        """
        prompt = request.prompt
        if isinstance(prompt, str):
            ids = self.encode(prompt)
        elif prompt and isinstance(prompt[0], Message):
            ids = self.template.encode(prompt, _offered(request))
        else:
            ids = [int(token) for token in prompt]  # type: ignore[arg-type]
            if bad := [token for token in ids if not 0 <= token < self.tokenizer.vocab_size]:
                raise InvalidRequest(f"expected token ids below {self.tokenizer.vocab_size}, found {bad[0]}", "prompt")
        if not ids:
            raise InvalidRequest("expected at least one token, found an empty prompt", "prompt")
        return ids

    def matcher(self, request: Request) -> Matcher | None:
        """What the output must match: the request's constraint, or the tool calls it insists on."""
        if request.constraint is not None:
            return self.grammars.matcher(request.constraint)
        if not request.tools:
            return None
        calls = self.tools.grammar(request.tools, request.tool_choice)
        return None if calls is None else self.grammars.matcher(calls, "tools")

    def answer(self, request: Request, index: int, max_tokens: int, is_constrained: bool) -> Answer:
        offered = _offered(request)
        if not offered:
            return Answer(self.tokenizer, request, index, max_tokens=max_tokens, is_constrained=is_constrained)
        parser = self.tools.parser(f"{request.request_id}/{index}", offered)
        return Answer(
            self.tokenizer, request, index, tool_parser=parser, max_tokens=max_tokens, is_constrained=is_constrained,
            show=self.tools.show,
        )  # fmt: skip

    def decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens)

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain text with what the model expects around it."""
        return self.tokenizer.encode(text, add_special=True)


def _offered(request: Request) -> tuple[Tool, ...]:
    """Tools the model is told of: none of them where it may call none."""
    return () if request.tool_choice.mode == "none" else request.tools
