"""Languages the output must belong to: llguidance decides, token by token, what may come next.

`Grammars` belongs to one tokenizer and compiles; a `Matcher` is one choice's place in one grammar. Grammars come from
clients: every step has a budget (see LIMITS), and a grammar that exceeds it is refused, not waited for.
What this does not protect against: a grammar that is merely slow within its budget, about 30 ms for each token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from shoal.core.errors import InvalidRequest, LocalError, Unsupported
from shoal.core.request import Constraint
from shoal.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

MAX_GRAMMARS = 64
"""Compiled grammars kept, the latest used; one takes tens of kilobytes, seldom megabytes."""

MAX_SOURCE_CHARS: dict[str, int] = {"json_schema": 256 * 1024, "regex": 64 * 1024, "lark": 256 * 1024}
"""Of a schema, expression or grammar. A literal expression of 260,000 held the interpreter for 0.6 s at a step."""

MAX_PATTERN_PROPERTIES = 64
"""In a whole schema: each is compared with each, 2,000 of them for minutes."""

MAX_PROPERTIES = 2000
"""Of one object: compiling takes time by the square, 0.3 s for these and 6 s for 5,000."""

LIMITS = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
"""llguidance's own defaults, about 20 ms to build and 15 ms a step, but for lexer states: 50,000 take up to 100 MB."""

WHITESPACE = r"[\x20\x0A\x0D\x09]{1,32}"
"""Between the tokens of JSON. Bounded: a small model indents for ever where the grammar lets it."""

MAX_ERROR_CHARS = 500


class Grammars:
    """Compiles constraints for one tokenizer and remembers them. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes about 0.1 s per 50,000 tokens. Unsupported for a model that cannot end its output."""
        from llguidance import LLTokenizer  # here and below: what most servers never use need not delay their start

        if not tokenizer.eos_ids:
            raise Unsupported("this model has no end token, so no constraint could ever end; use a model that has one")
        self._tokenizer = LLTokenizer(_Vocabulary(tokenizer), eos_token=sorted(tokenizer.eos_ids))
        self._eos_ids = tokenizer.eos_ids
        self._compiled = lru_cache(MAX_GRAMMARS)(self._compile)

    def matcher(self, constraint: Constraint, param: str = "response_format") -> Matcher:
        """A matcher at the beginning. InvalidRequest, blaming `param`, for what no grammar can be made of.

        A regular expression matches the whole output. JSON Schema keywords that cannot be honoured are refused.
        """
        try:
            grammar = self._compiled(constraint)
        except ValueError as error:
            message = f"{param}: cannot make a grammar of this {constraint.kind}: {_shortened(str(error))}"
            raise InvalidRequest(message, param) from error
        return Matcher(grammar.deep_copy(), self._tokenizer.vocab_size, self._eos_ids, param)

    def _compile(self, constraint: Constraint) -> LLMatcher:
        """A matcher never moved from the beginning, its first mask computed. ValueError in llguidance's words."""
        from llguidance import LLMatcher, LLParserLimits

        limit = MAX_SOURCE_CHARS[constraint.kind]
        if len(constraint.value) > limit:
            raise ValueError(f"expected at most {limit} characters, found {len(constraint.value)}")
        for schema in _schemas(constraint):
            _check_schema(schema)
        matcher = LLMatcher(self._tokenizer, _grammar(constraint), log_level=0, limits=LLParserLimits(**LIMITS))
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        matcher.compute_bitmask()
        if matcher.is_error():
            raise ValueError(f"no output can begin as it wants, or finding out takes too long: {matcher.get_error()}")
        return matcher


class Matcher:
    """A place in a grammar. The model's end tokens are allowed where the output is complete, and nothing after them."""

    def __init__(self, inner: LLMatcher, vocab_size: int, eos_ids: frozenset[int], param: str) -> None:
        self._inner = inner
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self._param = param
        self._has_ended = False  # llguidance forgets end tokens when it rolls back, so it never hears of them

    def mask(self) -> np.ndarray:
        """bool (vocab_size,): what may come next; a fresh array. InvalidRequest when the step's budget is spent."""
        bits = np.zeros((self._vocab_size + 31) // 32, np.uint32)
        self._inner.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self._check()
        return np.unpackbits(bits.view(np.uint8), count=self._vocab_size, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """Move on by `token`. LocalError, and no move, for one that `mask` does not allow."""
        if token in self._eos_ids:
            is_allowed = not self._has_ended and (self._inner.is_accepting() or bool(self.mask()[token]))
            self._has_ended = self._has_ended or is_allowed
        else:
            is_allowed = not self._has_ended and self._inner.try_consume_tokens([token]) == 1
            self._check()
        if not is_allowed:
            raise LocalError(f"token {token} is not allowed here by the constraint; sample under `mask`")

    def rollback(self, n: int) -> None:
        """Undo the last n accepted tokens. LocalError for more than there were."""
        if n == 0:
            return
        is_undone = self._inner.rollback(n - self._has_ended)
        self._has_ended = False
        if not is_undone:
            raise LocalError(f"cannot undo {n} tokens of a constraint: {self._inner.get_error()}")

    def fork(self) -> Matcher:
        """An independent matcher at the same place."""
        twin = Matcher(self._inner.deep_copy(), self._vocab_size, self._eos_ids, self._param)
        twin._has_ended = self._has_ended
        return twin

    @property
    def is_accepting(self) -> bool:
        """Whether the output so far belongs to the language."""
        return self._has_ended or bool(self._inner.is_accepting())

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but an end token may follow."""
        return self._has_ended or bool(self._inner.is_stopped())

    def _check(self) -> None:
        if self._inner.is_error():
            reason = _shortened(self._inner.get_error())
            raise InvalidRequest(f"{self._param}: the grammar is too complex to follow: {reason}", self._param)


class _Vocabulary:
    """What llguidance asks of a tokenizer, duck-typed by the attribute names it reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.eos_ids)
        self.special_token_ids = [token for token in ids if tokenizer.is_special(token)]
        self.tokens = [tokenizer.token_bytes(token) for token in ids]

    def __call__(self, text: str) -> list[int]:
        """Ids of `text` in the middle of an output: some tokenizers put a space in front of a text that begins one."""
        return self._tokenizer.encode_parts((self.eos_token_id, text))[1:]


def _schemas(constraint: Constraint) -> Iterator[object]:
    """JSON Schemas in a constraint. What is no JSON is left to llguidance."""
    match constraint.kind:
        case "json_schema":
            texts = [constraint.value]
        case "lark":
            texts = constraint.value.split("%json")[1:]
        case "regex":
            texts = []
    for text in texts:
        with suppress(ValueError, RecursionError):
            yield json.JSONDecoder().raw_decode(text.lstrip())[0]


def _check_schema(root: object) -> None:
    """ValueError for more properties than are compiled in bounded time."""
    level, num_patterns = [root], 0
    while level:
        schema = level.pop()
        if isinstance(schema, list):
            level += schema
        elif isinstance(schema, dict):
            level += schema.values()
            num_patterns += _size(schema.get("patternProperties"))
            if _size(schema.get("properties")) > MAX_PROPERTIES or num_patterns > MAX_PATTERN_PROPERTIES:
                raise ValueError(
                    f"expected at most {MAX_PROPERTIES} properties in an object and {MAX_PATTERN_PROPERTIES} "
                    "patternProperties in all, found more"
                )


def _size(value: object) -> int:
    return len(value) if isinstance(value, dict) else 0


def _grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher

    match constraint.kind:
        case "json_schema":
            schema = "{}" if constraint.value.strip() == "true" else constraint.value  # which takes no options
            return str(LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": WHITESPACE}))
        case "regex":
            return str(LLMatcher.grammar_from_regex(constraint.value))
        case "lark":
            return str(LLMatcher.grammar_from_lark(constraint.value))


def _shortened(error: str) -> str:
    """Without long lines, where llguidance quotes the source, and without what its quiet mode leaves of its state."""
    lines = error.replace("<non-verbose/>", "").strip().splitlines()
    return "\n".join(line if len(line) <= 120 else f"{line[:100]} ..." for line in lines)[:MAX_ERROR_CHARS]
