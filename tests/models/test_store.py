"""The store: a model is wholly there or not there."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from shoal.core.errors import BadConfig, BadWeights, LocalError
from shoal.models.store import Record, Store


def put(store: Store, name: str = "tiny", data: bytes = b"GGUF1234") -> Record:
    record = Record(name, "gguf", "tiny.gguf", f"./{name}.gguf", "00" * 32, len(data), None, 0.0)
    with store.staging(name) as staging:
        built = staging / "built"
        built.mkdir()
        (built / "tiny.gguf").write_bytes(data)
        store.commit(staging, built, record)
    return record


def test_a_committed_model_is_found_by_name_source_and_path(tmp_path: Path) -> None:
    store = Store(tmp_path / "with a space")
    record = put(store)
    assert store.records() == [record]
    assert store.record("TINY") == record
    path = store.path(record)
    assert path.read_bytes() == b"GGUF1234"
    assert store.resolve("tiny") == store.resolve("./tiny.gguf".replace("./", str(path.parent) + "/")) == path


def test_an_empty_store_has_no_models_and_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert store.records() == []
    assert store.record("tiny") is None
    assert not store.root.exists()


def test_a_block_that_fails_commits_nothing_and_the_next_one_can(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(FileNotFoundError), store.staging("tiny") as staging:
        (staging / "no such directory" / "half").write_bytes(b"GG")
    assert store.records() == []
    assert (tmp_path / "staging" / "tiny").exists()
    put(store)
    assert [record.name for record in store.records()] == ["tiny"]
    assert not (tmp_path / "staging" / "tiny").exists()


def test_a_commit_replaces_and_a_leftover_of_an_earlier_replacement_does_not_stop_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    leftover = tmp_path / "staging" / "tiny" / "replaced"
    leftover.mkdir(parents=True)
    (leftover / "old").write_bytes(b"x")
    put(store, data=b"GGUFabcdefgh")
    assert store.resolve("tiny").read_bytes() == b"GGUFabcdefgh"


@pytest.mark.parametrize("change", ["truncate", "delete"])
def test_weights_that_changed_under_the_store_name_file_and_expectation(tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    path = store.path(put(store))
    path.write_bytes(b"GG") if change == "truncate" else path.unlink()
    with pytest.raises(BadWeights, match=r"tiny\.gguf.*expected.*(8 bytes.*found 2 bytes|weights of 'tiny')"):
        store.resolve("tiny")


@pytest.mark.parametrize("text", ["", "{", '{"name": "tiny"}', "[]", "\x00"])
def test_a_record_that_cannot_be_read_names_its_file(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    put(store)
    (store.directory("tiny") / "record.json").write_text(text)
    with pytest.raises(BadWeights, match=r"record\.json: record: expected"):
        store.records()


def test_a_record_holds_no_value_of_another_type(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    path = store.directory("tiny") / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "size_bytes": "8"}))
    with pytest.raises(BadWeights, match="size_bytes"):
        store.records()


def test_remove_takes_the_model_and_leaves_weights_that_lie_elsewhere(tmp_path: Path) -> None:
    store, elsewhere = Store(tmp_path / "store"), tmp_path / "mine.gguf"
    elsewhere.write_bytes(b"GGUF")
    record = Record("mine", "gguf", str(elsewhere), str(elsewhere), "00" * 32, 4, None, 0.0)
    with store.staging("mine") as staging:
        (staging / "built").mkdir()
        store.commit(staging, staging / "built", record)
    assert store.resolve("mine") == elsewhere
    store.remove("mine")
    assert elsewhere.exists()
    with pytest.raises(BadConfig, match="'mine' is not in the store; there: nothing"):
        store.remove("mine")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "x" * 101, "a\x00b"])
def test_names_that_are_no_plain_directory_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig):
        Store(tmp_path).directory(name)


@pytest.mark.parametrize("model", ["nothing", "hf:owner/name", "./nothing.gguf", "nothing.gguf"])
def test_a_model_that_is_not_there_says_what_to_do(tmp_path: Path, model: str) -> None:
    put(Store(tmp_path))
    with pytest.raises(BadConfig, match=r"there: tiny|no file or folder at"):
        Store(tmp_path).resolve(model)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(LocalError, match="SHOAL_HOME"), Store(tmp_path / "file").staging("tiny"):
        pass


def _hold(root: Path, events: multiprocessing.Queue, go: multiprocessing.Event) -> None:  # type: ignore[type-arg, valid-type]
    with Store(root).staging("tiny"):
        events.put("held")
        go.wait(60)
        put_nothing = root / "first-was-here"
        put_nothing.touch()


def test_a_second_process_waits_until_the_first_is_done(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    events, go = context.Queue(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, events, go))
    first.start()
    assert events.get(timeout=60) == "held"
    waited: list[bool] = []

    def on_wait() -> None:
        waited.append((tmp_path / "first-was-here").exists())
        go.set()

    with Store(tmp_path).staging("tiny", on_wait):
        assert (tmp_path / "first-was-here").exists()
    first.join(60)
    assert waited == [False]


def test_a_holder_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    events, go = context.Queue(), context.Event()
    first = context.Process(target=_hold, args=(tmp_path, events, go))
    first.start()
    assert events.get(timeout=60) == "held"
    first.kill()
    first.join(60)
    put(Store(tmp_path))
    assert [record.name for record in Store(tmp_path).records()] == ["tiny"]
