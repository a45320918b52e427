"""A tokenizer out of a Hugging Face style folder: tokenizer.json, and what the files beside it say about its tokens.

tokenizer.json is read by the `tokenizers` library; this file takes it apart only to leave the control tokens out of the
plain encoders, and to learn each token's raw bytes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from shoal.core.errors import BadWeights, Unsupported
from shoal.models.vocabulary import END_TEXTS, Control, Encoders, Vocabulary

Json = dict[str, Any]


def read(folder: Path | None) -> tuple[Vocabulary, Encoders]:
    """What the folder says. BadWeights for a missing or broken file, Unsupported for a model that is not BPE."""
    path = (folder or Path()) / "tokenizer.json"
    spec = read_json(path)
    if spec is None:
        raise BadWeights(str(path), "file", "a tokenizer.json beside the weights", "none")
    try:
        return _read(path, spec)
    except (BadWeights, Unsupported):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise BadWeights(str(path), "tokenizer", "one that the tokenizers library accepts", str(error)) from error


def read_json(path: Path) -> Json | None:
    """The object in a JSON file, None without the file, BadWeights for anything else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadWeights(str(path), "file", "JSON text", str(error)) from error
    if not isinstance(value, dict):
        raise BadWeights(str(path), "file", "a JSON object", type(value).__name__)
    return value


def _read(path: Path, spec: Json) -> tuple[Vocabulary, Encoders]:
    model = spec.get("model") or {}
    if model.get("type", "BPE") != "BPE":
        raise Unsupported(f"{path}: model.type is {model['type']!r}; this build reads BPE tokenizers")
    spec = {**spec, "truncation": None, "padding": None}
    added = [token for token in spec.get("added_tokens") or () if token["content"]]
    control = {
        token["content"]: Control(token["id"], token.get("lstrip", False), token.get("rstrip", False))
        for token in added
        if token.get("special")
    }
    plain = _without(spec, control)
    first = _from(plain)
    vocabulary = _vocabulary(path.parent, spec, control, first)
    return vocabulary, Encoders(first, _later(plain) or first, lambda: _from(spec))


def _from(spec: Json) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(spec))


def _without(spec: Json, control: dict[str, Control]) -> Json:
    """`spec` with no control token and no merge that would spell one. The unknown token stays: a model needs it."""
    unknown = spec["model"].get("unk_token")
    vocab = {text: token for text, token in spec["model"]["vocab"].items() if text not in control or text == unknown}
    merges = [merge for merge in spec["model"]["merges"] if not _touches(merge, control)]
    added = [token for token in spec.get("added_tokens") or () if not token.get("special")]
    vocab |= {token["content"]: token["id"] for token in added}  # else the library gives them the next free ids
    return {**spec, "model": {**spec["model"], "vocab": vocab, "merges": merges}, "added_tokens": added}


def _touches(merge: str | list[str], control: dict[str, Control]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left + right in control or left in control or right in control


def _later(plain: Json) -> Tokenizer | None:
    """The encoder after a control token, where it differs: Metaspace "first" puts its space only at the start."""
    later = copy.copy(plain)
    later["pre_tokenizer"] = copy.deepcopy(plain.get("pre_tokenizer"))
    first = [step for step in _steps(later["pre_tokenizer"], "pretokenizers") if step.get("prepend_scheme") == "first"]
    for step in first:
        step["prepend_scheme"] = "never"
    return _from(later) if first else None


def _steps(part: Json | None, sequence: str) -> list[Json]:
    """The steps of a pre-tokenizer or decoder, with sequences flattened."""
    if not part:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part[sequence] for step in _steps(inner, sequence)]
    return [part]


# ---- what the files say about tokens -----------------------------------------------------------------------


def _vocabulary(folder: Path, spec: Json, control: dict[str, Control], plain: Tokenizer) -> Vocabulary:
    ids = {**spec["model"]["vocab"], **{token["content"]: token["id"] for token in spec.get("added_tokens") or ()}}
    texts = [""] * (max(ids.values(), default=-1) + 1)
    for text, token in ids.items():
        texts[token] = text
    config = read_json(folder / "tokenizer_config.json") or {}
    ends = _end_ids(folder, config, ids)
    prefix, suffix = _around(plain)
    bos, eos = _named(config.get("bos_token"), ids), _named(config.get("eos_token"), ids)
    control = control | {texts[token]: Control(token) for token in (*ends, bos) if token is not None}
    return Vocabulary(
        texts=tuple(texts),
        verbatim=frozenset(token["id"] for token in spec.get("added_tokens") or ()),
        control=control,
        bos_id=bos if bos is not None else next(iter(prefix), None),
        eos_id=eos if eos is not None else min(ends, default=None),
        eos_ids=frozenset(ends | {control[text].id for text in END_TEXTS & control.keys()}),
        adds_bos=_flag(config, "add_bos_token", bool(prefix)),
        adds_eos=_flag(config, "add_eos_token", bool(suffix)),
        **_writing(spec),
    )


def _writing(spec: Json) -> Json:
    """How token texts stand for bytes."""
    steps = _steps(spec.get("decoder"), "decoders")
    cuts = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    is_byte_level = any(step["type"] == "ByteLevel" for step in steps + cuts)
    drops = [step for step in steps if step["type"] == "Strip" and step.get("content") == " " and step.get("start")]
    drops += [step for step in steps if step["type"] == "Metaspace" and step.get("prepend_scheme") != "never"]
    return {
        "alphabet": "byte_level" if is_byte_level else "sentencepiece",
        "drops_space": bool(drops) and not is_byte_level,
        "has_byte_tokens": bool(spec["model"].get("byte_fallback")),
    }


def _around(plain: Tokenizer) -> tuple[list[int], list[int]]:
    """Token ids that the post-processor puts before and after a text."""
    bare = plain.encode("a", add_special_tokens=False).ids
    whole = plain.encode("a", add_special_tokens=True).ids
    extra = len(whole) - len(bare)
    before = next((n for n in range(extra + 1) if whole[n : n + len(bare)] == bare), 0)
    return whole[:before], whole[before + len(bare) :]


def _end_ids(folder: Path, config: Json, ids: dict[str, int]) -> set[int]:
    ends = {_named(config.get("eos_token"), ids)} - {None}
    for name in ("generation_config.json", "config.json"):
        value = (read_json(folder / name) or {}).get("eos_token_id")
        ends |= set(value if isinstance(value, list) else [] if value is None else [value])
    if bad := [token for token in ends if token not in ids.values()]:
        raise BadWeights(str(folder), "eos_token_id", "ids of tokens in tokenizer.json", repr(bad[0]))
    return ends  # type: ignore[return-value]


def _named(token: Any, ids: dict[str, int]) -> int | None:
    """The id of a token given as its text or as an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return ids.get(text) if isinstance(text, str) else None


def _flag(config: Json, name: str, default: bool) -> bool:
    value = config.get(name)
    return value if isinstance(value, bool) else default
