"""A tokenizer out of a GGUF file's `tokenizer.ggml.*` keys (ggml's docs/gguf.md), with the `tokenizers` library.

Kinds: "gpt2" is byte-level BPE with merges and a named cut into words; "llama" is SentencePiece BPE, whose merges are
implied by the pieces' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from shoal.core.errors import BadWeights, Unsupported
from shoal.models.pretokenizers import cut_named
from shoal.models.vocabulary import END_TEXTS, SPACE, Control, Encoders, Vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""`tokenizer.ggml.token_type`."""

_PREFIX = "tokenizer.ggml."

_Build = Callable[[Iterable[int], list[tuple[str, str]]], Tokenizer]
"""Token ids and merges to a tokenizer without added tokens."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """The keys, checked: `texts`, `types` and (for SentencePiece) `scores` have one entry for each id."""

    model: str
    texts: tuple[str, ...]
    types: tuple[int, ...]
    metadata: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.metadata.get(_PREFIX + name)

    def id(self, name: str) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < len(self.texts):
            raise _bad(name, f"a token id below {len(self.texts)}", repr(value))
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        return default if value is None else bool(value)

    def of_type(self, *types: int) -> list[int]:
        return [token for token, kind in enumerate(self.types) if kind in types]


def _bad(name: str, expected: str, found: str) -> BadWeights:
    return BadWeights("GGUF metadata", _PREFIX + name, expected, found)


def read(metadata: Mapping[str, Any]) -> tuple[Vocabulary, Encoders]:
    """What the keys say. BadWeights for broken values, Unsupported for a kind or a cut this build does not know."""
    fields = _parse(metadata)
    try:
        return _read_bpe(fields) if fields.model == "gpt2" else _read_sentencepiece(fields)
    except (BadWeights, Unsupported):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for inconsistent merges
        raise _bad("merges", "merges of tokens in the vocabulary", str(error)) from error


def _parse(metadata: Mapping[str, Any]) -> _Fields:
    model = metadata.get(_PREFIX + "model")
    if model not in ("gpt2", "llama"):
        raise Unsupported(f'tokenizer.ggml.model is {model!r}; this build reads "gpt2" (byte-level BPE) and "llama"')
    texts = _strings(metadata, "tokens")
    types = tuple(int(kind) for kind in _numbers(metadata, "token_type", len(texts), NORMAL))
    fields = _Fields(model, texts, types, metadata)
    control = {fields.id("bos_token_id"), fields.id("eos_token_id"), fields.id("eot_token_id")}
    return _Fields(model, texts, tuple(_kind(token, text, types[token], control) for token, text in enumerate(texts)),
                   metadata)  # fmt: skip


def _kind(token: int, text: str, kind: int, control: set[int | None]) -> int:
    """Files sometimes call an end token normal; then a user could type it."""
    return CONTROL if token in control or text in END_TEXTS else kind


def _strings(metadata: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = metadata.get(_PREFIX + name)
    if not isinstance(value, Sequence) or isinstance(value, str) or (not value and name != "merges"):
        raise _bad(name, "a list of strings", type(value).__name__)
    if not set(map(type, value)) <= {str}:
        raise _bad(name, "a list of strings", "other items in it")
    return tuple(value)


def _numbers(metadata: Mapping[str, Any], name: str, count: int, default: float) -> Sequence[float]:
    value = metadata.get(_PREFIX + name)
    if value is None:
        return [default] * count
    try:
        numbers = [float(item) for item in value]
    except (TypeError, ValueError) as error:
        raise _bad(name, "a list of numbers", str(error)) from error
    if len(numbers) != count:
        raise _bad(name, f"{count} numbers, one for each token", f"{len(numbers)}")
    return numbers


# ---- byte-level BPE ----------------------------------------------------------------------------------------


def _read_bpe(fields: _Fields) -> tuple[Vocabulary, Encoders]:
    cut = cut_named(fields.get("pre") or "default")
    merges = list(map(_pair, _strings(fields.metadata, "merges")))
    steps = [pre_tokenizers.Split(Regex(split), "isolated") for split in cut.splits]

    def build(ids: Iterable[int], merges: list[tuple[str, str]]) -> Tokenizer:
        vocab = {fields.texts[token]: token for token in ids}
        built = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=cut.ignores_merges))
        built.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])
        built.decoder = decoders.ByteLevel()
        if cut.composes:
            built.normalizer = normalizers.NFC()
        return built

    verbatim = frozenset(fields.of_type(UNKNOWN, CONTROL, USER_DEFINED))
    vocabulary = _vocabulary(fields, verbatim, cut.adds_bos)
    return vocabulary, _encoders(fields, build, merges)


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right:
        raise _bad("merges", "two tokens with a space between them", repr(merge))
    return left, right


# ---- SentencePiece BPE -------------------------------------------------------------------------------------


def _read_sentencepiece(fields: _Fields) -> tuple[Vocabulary, Encoders]:
    scores = _numbers(fields.metadata, "scores", len(fields.texts), 0.0)
    has_prefix = fields.flag("add_space_prefix", True)
    escape = [normalizers.Prepend(SPACE)] if has_prefix else []
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    unknown = next((fields.texts[token] for token in fields.of_type(UNKNOWN)), None)

    def build(ids: Iterable[int], merges: list[tuple[str, str]]) -> Tokenizer:
        vocab = {fields.texts[token]: token for token in ids}
        built = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
        built.normalizer = normalizers.Sequence([*escape, normalizers.Replace(" ", SPACE)])
        built.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        return built

    verbatim = frozenset(fields.of_type(UNKNOWN, CONTROL, USER_DEFINED))
    vocabulary = _vocabulary(fields, verbatim, True, drops_space=has_prefix)
    return vocabulary, _encoders(fields, build, _implied_merges(fields, scores))


def _implied_merges(fields: _Fields, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, best score first: SentencePiece joins the best-scored pair it can."""
    ids = {fields.texts[token]: token for token in fields.of_type(NORMAL)}
    found = [
        (-scores[token], ids[piece[:at]], ids[piece[at:]], piece[:at], piece[at:])
        for piece, token in ids.items()
        for at in range(1, len(piece))
        if piece[:at] in ids and piece[at:] in ids
    ]
    return [(left, right) for *_, left, right in sorted(found)]


# ---- both --------------------------------------------------------------------------------------------------


def _encoders(fields: _Fields, build: _Build, merges: list[tuple[str, str]]) -> Encoders:
    """The plain encoder lacks control tokens and the merges that would spell one."""
    control = {fields.texts[token] for token in fields.of_type(CONTROL)}
    allowed = [token for token, kind in enumerate(fields.types) if kind != CONTROL]
    harmless = [
        (left, right)
        for left, right in merges
        if left not in control and right not in control and left + right not in control
    ]
    plain = build(allowed, harmless)
    plain.add_tokens(_added(fields, USER_DEFINED))

    def full() -> Tokenizer:
        whole = build(range(len(fields.texts)), merges)
        whole.add_tokens(_added(fields, USER_DEFINED))
        whole.add_special_tokens(_added(fields, CONTROL))
        return whole

    return Encoders(plain, plain, full)


def _added(fields: _Fields, kind: int) -> list[AddedToken]:
    """Tokens that are looked for in a text before it is cut into words."""
    texts = (fields.texts[token] for token in fields.of_type(kind))
    return [AddedToken(text, normalized=False) for text in texts if text]


def _vocabulary(fields: _Fields, verbatim: frozenset[int], adds_bos: bool, *, drops_space: bool = False) -> Vocabulary:
    ends = {token for token in fields.of_type(CONTROL) if fields.texts[token] in END_TEXTS}
    ends |= {fields.id(name) for name in ("eos_token_id", "eot_token_id", "eom_token_id")} - {None}  # type: ignore[arg-type]
    return Vocabulary(
        texts=fields.texts,
        alphabet="byte_level" if fields.model == "gpt2" else "sentencepiece",
        verbatim=verbatim,
        control={fields.texts[token]: Control(token) for token in fields.of_type(CONTROL)},
        bos_id=fields.id("bos_token_id"),
        eos_id=fields.id("eos_token_id"),
        eos_ids=frozenset(ends),
        adds_bos=fields.flag("add_bos_token", adds_bos),
        adds_eos=fields.flag("add_eos_token", False),
        drops_space=drops_space,
        has_byte_tokens=any(kind == BYTE for kind in fields.types),
    )
