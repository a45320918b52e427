"""`manifest.json` of a compiled model: what is in the folder, what it is called, and how sound its proofs are.

Read strictly: unknown or missing fields, and fields of another type, are a BadWeights. Nothing a verifier decides by is
taken from here but the mode and the commitment's root, and both are under the model's digest.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from shoal.core.encoding import encode
from shoal.core.errors import BadWeights
from shoal.crypto.hashes import blake3_digest, hasher

MANIFEST = "manifest.json"
FORMAT = "shoal proof artifact 1"
Mode = Literal["public", "committed"]
"""How verifiers know the weights: as numbers, or by the root of a commitment to them."""

_BLOCK = 1 << 20
_SHORT = 32
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. name: the model's; tensor: the graph's. Its integers stand for entry * 2^-fraction."""

    name: str
    tensor: str
    shape: tuple[int, ...]
    fraction: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """model, graph, circuit, weights: hexadecimal digests; weights: of the numbers, or the root if they are committed.

    files: name -> BLAKE3 and bytes. about: what it was made of, sizes, bits, error against the float model; for people.
    """

    format: str
    mode: Mode
    model: str
    graph: str
    circuit: str
    weights: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: dict[str, tuple[str, int]]
    about: dict[str, Any]


def model_digest(mode: Mode, graph: bytes, weights: bytes, ports: tuple[tuple[Port, ...], tuple[Port, ...]]) -> bytes:
    """32 bytes that name a compiled model: graph with constants and scales, weights, names of inputs and outputs.

    graph: of the graph without weights. weights: their digest or root.
    """
    names = [[[port.name, port.tensor] for port in side] for side in ports]
    return blake3_digest("shoal proof model v1", encode([mode, graph, weights, names]))


def to_json(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """BadWeights names what is wrong with it."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise BadWeights(str(folder), "folder", "what `shoal prove compile` writes", "no folder")
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadWeights(str(file), "manifest", "a JSON file", str(error)) from error
    wanted = {entry.name for entry in fields(Manifest)}
    if not isinstance(found, dict) or found.keys() != wanted:
        keys = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise BadWeights(str(file), "manifest", f"a map of {', '.join(sorted(wanted))}", str(keys))
    if found["format"] != FORMAT:
        raise BadWeights(str(file), "format", FORMAT, str(found["format"]))
    try:
        return _manifest(found)
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(str(file), "manifest", "fields of the right types", str(error)) from error


def file_digest(path: Path) -> tuple[str, int]:
    """BLAKE3 and size."""
    state, size = hasher("shoal proof file v1"), 0
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            state.update(block)
            size += len(block)
    return state.hexdigest(), size


def check_file(folder: Path, manifest: Manifest, name: str) -> None:
    """BadWeights if a file is not the one that was written."""
    path = folder / name
    if name not in manifest.files:
        raise BadWeights(str(folder / MANIFEST), "files", f"an entry for {name}", ", ".join(sorted(manifest.files)))
    expected, size = manifest.files[name]
    try:
        found = file_digest(path)
    except OSError as error:
        raise BadWeights(str(path), "file", f"{size} bytes", str(error)) from error
    if found != (expected, size):
        asked = f"{size} bytes with digest {expected[:_SHORT]}…"
        raise BadWeights(
            str(path), "digest", f"{asked} as in {MANIFEST}", f"{found[1]} bytes with {found[0][:_SHORT]}…"
        )


def _manifest(found: dict[str, Any]) -> Manifest:
    texts = {name: _text(found, name) for name in ("format", "model", "graph", "circuit", "weights")}
    if found["mode"] not in ("public", "committed"):
        raise ValueError(f"mode: expected public or committed, found {found['mode']!r}")
    for name in ("model", "graph", "circuit", "weights"):
        if _DIGEST.fullmatch(texts[name]) is None:
            raise ValueError(f"{name}: expected 32 bytes in hexadecimal, found {texts[name]!r:.80}")
    files = {_of(name, str): (_of(entry[0], str), _of(entry[1], int)) for name, entry in found["files"].items()}
    ports = {side: tuple(_port(entry) for entry in _of(found[side], list)) for side in ("inputs", "outputs")}
    return Manifest(mode=found["mode"], files=files, about=_of(found["about"], dict), **texts, **ports)  # type: ignore[arg-type]


def _port(entry: dict[str, Any]) -> Port:
    shape = tuple(_of(length, int) for length in _of(entry["shape"], list))
    words = {name: _of(entry[name], str) for name in ("name", "tensor")}
    numbers = {name: _of(entry[name], int) for name in ("fraction", "low", "high")}
    if entry.keys() != {"shape", *words, *numbers}:
        raise ValueError(f"expected a port's fields, found {sorted(entry)}")
    return Port(shape=shape, **words, **numbers)


def _text(found: dict[str, Any], name: str) -> str:
    text: str = _of(found[name], str)
    return text


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {value!r:.80}")
    return value
