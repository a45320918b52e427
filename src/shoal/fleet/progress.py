"""What of a request's answer was delivered, and what is left to ask for when whoever gave it fails.

Rules that stay true in this file:
- what was delivered is never asked for again: each open choice goes on behind its own tokens (`Request.resume`);
- a choice that ended stays ended;
- no choice grows beyond what the request allows, whoever answers (`believing`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shoal.core.chunk import Chunk, Usage
from shoal.core.errors import PeerFault
from shoal.core.request import Request, Resume
from shoal.fleet.believing import believed, most_chars, most_tokens, num_chars

LOCAL = "local"
"""The name of the engine here among providers."""


@dataclass(slots=True)
class _Choice:
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    num_chunks: int = 0
    num_chars: int = 0
    has_calls: bool = False
    is_done: bool = False


class Progress:
    """Of one request. `usage` is that of the whole answer once it is whole."""

    def __init__(self, request: Request) -> None:
        self._request = request
        given = request.resume
        self._before = given or Resume()
        self._first = 0 if given is None else given.choice
        self._choices = {self._first + offset: _Choice() for offset in range(request.n)}
        self._is_begun = False
        self._most_tokens, self._most_chars = most_tokens(request), most_chars(request)
        self._usages: list[Usage] = []
        self._providers: list[str] = []
        self._carried = 0  # tokens that the next provider is given as text, and so counts as prompt

    @property
    def is_begun(self) -> bool:
        """Whether anything was delivered."""
        return self._is_begun

    @property
    def is_whole(self) -> bool:
        return all(choice.is_done for choice in self._choices.values())

    @property
    def has_tokens(self) -> bool:
        """Whether token ids are known for everything delivered, so that an exact continuation is possible."""
        return all(choice.tokens or not any(choice.texts) for choice in self._choices.values())

    @property
    def can_go_on_from_text(self) -> bool:
        """Whether the delivered text says everything: half a tool call, or a log-probability, is not text."""
        is_plain = self._request.sampling.logprobs is None
        return is_plain and not any(choice.has_calls and not choice.is_done for choice in self._choices.values())

    @property
    def providers(self) -> tuple[str, ...]:
        """Who made what was delivered, in order."""
        return tuple(self._providers)

    def forget_tokens(self) -> bool:
        """Go on from the text alone, since nobody can from these token ids; whether that is another way at all."""
        if not self.can_go_on_from_text or not any(choice.tokens for choice in self._choices.values()):
            return False
        for choice in self._choices.values():
            choice.tokens.clear()
        return True

    def add(self, chunk: Chunk, provider: str = "") -> Chunk:
        """Record a chunk of `provider`; what to deliver: usage is held back until the whole answer is there.

        PeerFault for a chunk that breaks the rules of `core.chunk`.
        """
        choice = self._choices.get(chunk.index)
        if choice is None or choice.is_done:
            raise PeerFault(f"a chunk of choice {chunk.index}, which has ended or was never asked for")
        chunk = self._inside(believed(chunk, self._request), provider)
        choice.num_chars += num_chars(chunk)
        if len(choice.tokens) + len(chunk.token_ids) > self._most_tokens or choice.num_chars > self._most_chars:
            raise PeerFault(f"an answer that goes on beyond the {self._most_tokens} tokens it may have")
        is_echo = self._request.echo and not chunk.token_ids and not choice.tokens
        choice.tokens += chunk.token_ids
        choice.texts.append("" if is_echo else chunk.text)
        choice.num_chunks += bool(chunk.text)
        choice.has_calls = choice.has_calls or bool(chunk.tool_calls)
        choice.is_done = chunk.finish_reason is not None
        self._is_begun = True
        if provider not in ("", *self._providers[-1:]) and (chunk.text or chunk.token_ids or choice.is_done):
            self._providers.append(provider)
        if chunk.usage is not None:
            self._usages.append(chunk.usage)
        return replace(chunk, usage=self._usage() if self.is_whole else None)

    def _inside(self, chunk: Chunk, provider: str) -> Chunk:
        """With who made it, where a receipt will say so; evidence is the engine's here, or nobody's."""
        if self._request.receipt:
            return replace(chunk, provider=provider, evidence=chunk.evidence if provider == LOCAL else None)
        return chunk if chunk.evidence is None else replace(chunk, evidence=None)

    def rest(self) -> list[Request]:
        """What to ask the next provider: the request itself, or one for each open choice."""
        if not self._is_begun:
            return [self._request]
        self._usages.clear()
        self._carried = sum(choice.num_chunks for choice in self._choices.values() if not choice.tokens)
        return [self._resumed(index, choice) for index, choice in self._choices.items() if not choice.is_done]

    def _resumed(self, index: int, choice: _Choice) -> Request:
        tokens, text = (*self._before.tokens, *choice.tokens), self._before.text + "".join(choice.texts)
        count = len(tokens) or self._before.count + choice.num_chunks  # servers that send text send it token by token
        resume = Resume(tokens, index, text, count)
        return replace(self._request, n=1, echo=False, resume=resume)

    def _usage(self) -> Usage | None:
        """The last provider's, with what others made counted as answer; who they were is this node's own word."""
        providers = tuple(self._providers)
        if not self._usages:
            return Usage(completion_tokens=self._num_tokens(), providers=providers)
        last, known = replace(self._usages[-1], providers=providers), self._num_tokens()
        if known:
            return replace(last, completion_tokens=known)
        prompt = max(0, last.prompt_tokens - self._carried)
        return replace(last, prompt_tokens=prompt, completion_tokens=last.completion_tokens + self._carried)

    def _num_tokens(self) -> int:
        return len(self._before.tokens) + sum(len(choice.tokens) for choice in self._choices.values())
