"""Tokens of one choice in, chunks out: text, stop conditions, log-probabilities, tool calls, and one finish reason."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.chunk import Chunk, FinishReason, TokenLogprob, ToolCallDelta
from shoal.core.errors import LocalError
from shoal.core.request import Message, Request
from shoal.engine.sampler import Sampled
from shoal.engine.stops import StopScanner
from shoal.models.detokenizer import Detokenizer
from shoal.models.tokenizer import Tokenizer
from shoal.models.tool_parser import ToolCallParser


class Answer:
    """Assembles choice `index` of `request`.

    Feed every token that was sampled, in order, to `push`; it returns a `Chunk`, or None while there is nothing to
    show yet (half a character, text that may become a stop string or a tool call). Stop feeding once `finish_reason`
    is set: the chunk that came with it carries it, and everything that was held.

    A token's id and log-probability travel with the chunk that shows its text or with an earlier one, and none is lost:
    over all chunks `token_ids` are exactly the tokens pushed, the end token included, and where log-probabilities
    were asked for `logprobs` has one entry per token id. The end token, and a stop string, are not part of the text.

    What ends an answer, in this order:
    - the model's end tokens (not with `ignore_eos`) and `stop_token_ids`, after `min_tokens` tokens; where a grammar
      holds the answer the model's end tokens always do, for they are sampled only when it is complete: "stop";
    - a stop string in the text as generated, tool calls included, completed by token number `min_tokens` or a later
      one; the one completed first, of several the longest: "stop";
    - `max_tokens` tokens: "length".
    An answer that ends with "stop" and holds a tool call says "tool_calls". Where parallel calls are not allowed the
    first whole call ends the answer, and no other comes out.

    max_tokens       tokens this choice may have: the request's own limit and what the context has room for.
    tool_parser      of this choice alone, or None where text is text.
    is_constrained   a grammar holds the answer; implied by `request.constraint`.
    show             control tokens that are text to the tool parser: its `ToolFormat.show`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        request: Request,
        index: int,
        *,
        tool_parser: ToolCallParser | None = None,
        max_tokens: int,
        is_constrained: bool = False,
        show: frozenset[int] = frozenset(),
    ) -> None:
        sampling = request.sampling
        is_constrained = is_constrained or request.constraint is not None
        nothing: frozenset[int] = frozenset()
        self._tokenizer = tokenizer
        self._index = index
        self._tools = tool_parser
        self._max_tokens = max_tokens
        self._min_tokens = sampling.min_tokens
        self._ends = frozenset(sampling.stop_token_ids) | (nothing if sampling.ignore_eos else tokenizer.eos_ids)
        self._forced_ends = tokenizer.eos_ids if is_constrained else nothing
        self._wants_logprobs = sampling.logprobs is not None
        self._detokenizer = Detokenizer(tokenizer, show=show, at_start=_is_chat(request))
        self._stops = StopScanner(sampling.stop)
        self._tokens: list[int] = []  # ids and log-probabilities not yet in a chunk
        self._logprobs: list[TokenLogprob] = []
        self._num_tokens = 0
        self._shown_already = 0  # characters to leave out: see `replay`
        self._is_parallel = request.tool_choice.parallel
        self._finish_reason: FinishReason | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not."""
        return self._finish_reason

    @property
    def num_tokens(self) -> int:
        """Tokens pushed so far, the end token included: what usage counts."""
        return self._num_tokens

    def push(self, sampled: Sampled) -> Chunk | None:
        """The next token. LocalError once the answer has ended."""
        if self._finish_reason is not None:
            raise LocalError(f"choice {self._index} ended ({self._finish_reason}); it takes no more tokens")
        self._record(sampled)
        if self._is_end(sampled.token_id):
            return self._end("stop", "")
        text, is_stopped = self._scan(self._detokenizer.push(sampled.token_id))
        if is_stopped:
            return self._close("stop", text)
        if self._num_tokens >= self._max_tokens:
            return self._end("length", text)
        visible, deltas = self._parse(text)
        if self._has_enough_calls():
            self._finish_reason = "tool_calls"
        return self._chunk(visible, deltas) if visible or deltas or self._finish_reason else None

    def replay(self, tokens: Sequence[int], delivered: str | None = None) -> None:
        """Tokens whose chunks were delivered by somebody else. LocalError where the answer ends among them.

        delivered  the text that was shown, where these tokens were only guessed from it: what is held back here but
                   was shown there is not shown again.
        """
        chunks = [self.push(Sampled(token)) for token in tokens]
        if self._finish_reason is not None:
            raise LocalError(f"the answer ended ({self._finish_reason}): there is nothing to go on with")
        self._tokens.clear()
        self._logprobs.clear()
        if delivered is not None:
            shown = "".join(chunk.text for chunk in chunks if chunk is not None)
            if not delivered.startswith(shown):
                raise LocalError("the text so far reads otherwise once it is made of tokens")
            self._shown_already = len(delivered) - len(shown)

    def end(self) -> Chunk:
        """End the answer here with "length" and give out everything held: there is no room for another token."""
        if self._finish_reason is not None:
            raise LocalError(f"choice {self._index} ended already ({self._finish_reason})")
        return self._end("length", "")

    def prompt_echo(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> Chunk:
        """The chunk that repeats the prompt, to be sent before any other; with `max_tokens` 0 the whole answer."""
        if self._max_tokens <= 0:
            self._finish_reason = "length"
        return Chunk(index=self._index, text=text, logprobs=logprobs, finish_reason=self._finish_reason)

    def _is_end(self, token: int) -> bool:
        return token in self._forced_ends or (token in self._ends and self._num_tokens > self._min_tokens)

    def _record(self, sampled: Sampled) -> None:
        self._num_tokens += 1
        self._tokens.append(sampled.token_id)
        if self._wants_logprobs:
            top = tuple(self._logprob(token, value) for token, value in sampled.top)
            self._logprobs.append(self._logprob(sampled.token_id, sampled.logprob, top))

    def _logprob(self, token: int, value: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(token, self._tokenizer.token_bytes(token), value, top)

    def _scan(self, text: str) -> tuple[str, bool]:
        return self._stops.push(text, is_active=self._num_tokens >= self._min_tokens)

    def _end(self, reason: FinishReason, text: str) -> Chunk:
        """Give out what the detokeniser and the stop scanner hold; a stop string may complete in the former."""
        tail, is_stopped = self._scan(self._detokenizer.flush())
        if is_stopped:
            return self._close("stop", text + tail)
        return self._close(reason, text + tail + self._stops.flush())

    def _close(self, reason: FinishReason, text: str) -> Chunk:
        """The last chunk: `text` is all that is left of the answer."""
        text, deltas = self._parse(text)
        if self._tools is not None and not self._has_enough_calls():
            tail, more = self._tools.finish()
            text, deltas = text + tail, deltas + more
        has_call = self._tools is not None and self._tools.num_calls > 0
        is_whole = reason == "stop" or self._has_enough_calls()
        self._finish_reason = "tool_calls" if has_call and is_whole else reason
        return self._chunk(text, deltas)

    def _parse(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        if self._tools is None:
            return text, ()
        visible, deltas = self._tools.push(text)
        return visible, tuple(delta for delta in deltas if self._is_parallel or delta.index == 0)

    def _has_enough_calls(self) -> bool:
        return self._tools is not None and not self._is_parallel and self._tools.num_complete > 0

    def _chunk(self, text: str, deltas: tuple[ToolCallDelta, ...]) -> Chunk:
        if self._shown_already:
            text, self._shown_already = text[self._shown_already :], max(0, self._shown_already - len(text))
        tokens, logprobs = tuple(self._tokens), tuple(self._logprobs)
        self._tokens.clear()
        self._logprobs.clear()
        return Chunk(self._index, text, tokens, logprobs, deltas, self._finish_reason)


def _is_chat(request: Request) -> bool:
    """Whether the answer begins a text of its own, rather than going on with the prompt's."""
    return bool(request.prompt) and isinstance(request.prompt[0], Message)
