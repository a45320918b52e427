"""What a model's text looks like: the engine's one view of tokenizer, chat template, tool format and grammars."""

from __future__ import annotations

from functools import cached_property

from shoal.core.errors import InvalidRequest
from shoal.core.request import Message, Request
from shoal.engine.answer import Answer
from shoal.engine.constraint import Grammars, Matcher
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import Tokenizer
from shoal.models.tools import ToolFormat


class Language:
    """Safe to use from several threads at once. `template` None: only text and token ids are accepted."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, tools: ToolFormat | None = None) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._tools = tools

    @cached_property
    def grammars(self) -> Grammars:
        """Made at first use: it walks the whole vocabulary."""
        return Grammars(self.tokenizer)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token, or a few more: so many characters at most become one."""
        return max(len(text.encode("utf-8", "replace")) for text in self.tokenizer.vocabulary.texts)

    def prompt(self, request: Request) -> list[int]:
        """Token ids of messages (with template and tools), of text, or those given. InvalidRequest as they raise."""
        if isinstance(request.prompt, str):
            return self.encode(request.prompt)
        messages = tuple(item for item in request.prompt if isinstance(item, Message))
        if not messages:
            return [item for item in request.prompt if isinstance(item, int)]
        if self._template is None:
            raise InvalidRequest("this model has no chat template; send text or token ids", "messages")
        tools = () if request.tool_choice.mode == "none" else request.tools
        return self._template.encode(messages, tools)

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain text, with what the model expects around it."""
        return self.tokenizer.encode(text, add_special=True)

    def matcher(self, request: Request) -> Matcher | None:
        """What the output must match: the request's constraint, or the tool calls it insists on."""
        if self._tools is not None and (calls := self._tools.grammar(request.tools, request.tool_choice)) is not None:
            if request.constraint is not None:
                raise InvalidRequest("a constraint and a tool_choice exclude each other", request.constraint.param)
            return self.grammars.matcher(calls, "tool_choice")
        return None if (asked := request.constraint) is None else self.grammars.matcher(asked, asked.param)

    def answer(self, request: Request, index: int, max_tokens: int, is_constrained: bool) -> Answer:
        """What assembles choice `index`; reads tool calls where the request has tools that may be called."""
        tools = self._tools if request.tools and request.tool_choice.mode != "none" else None
        return Answer(
            self.tokenizer,
            request,
            index,
            tool_parser=tools.parser(f"{request.request_id}-{index}", request.tools) if tools else None,
            max_tokens=max_tokens,
            is_constrained=is_constrained,
            show=tools.show if tools else frozenset(),
        )
