"""What each drafter guesses from, what it keeps, and what it forgets."""

from __future__ import annotations

import logging
import stat
from array import array
from pathlib import Path

import pytest
from drafts_harness import TIMES

from shoal.core.errors import BadWeights
from shoal.engine.drafts.draft import NOTHING, Draft, Want
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.engine.drafts.saved import MAGIC, read_sequences, write_sequences
from shoal.engine.drafts.suffix import SuffixConfig, SuffixDrafter
from shoal.engine.sequence import Sequence
from shoal.kernels.suffix_tree import MAX_BYTES_PER_TOKEN


def sequence(*tokens: int) -> Sequence:
    return Sequence(array("i", tokens), 1000)


def guess(drafter: LookupDrafter | SuffixDrafter, seq: Sequence, most: int = 20) -> Draft:
    (draft,) = drafter.propose([Want(seq, most)], TIMES)
    return draft


def test_lookup_takes_the_longest_run_and_its_latest_occurrence() -> None:
    drafter, seq = LookupDrafter(), sequence(1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3)
    draft = guess(drafter, seq)
    assert (draft.tokens, draft.match) == ((4, 9, 2, 3, 5, 1, 2, 3), 3)
    seq.tokens.extend([7, 2, 3])
    assert guess(drafter, seq, 3).tokens == (7, 2, 3), "1 2 3 is no longer the end: 2 3 was last followed by 7"
    seq.tokens.append(42)
    assert guess(drafter, seq) is NOTHING


def test_past_answers_are_drafted_from_but_not_past_prompts() -> None:
    drafter = SuffixDrafter()
    first = sequence(*range(100, 140))
    guess(drafter, first)
    drafter.forget(first, list(range(200, 240)))
    draft = guess(drafter, sequence(1, 2, 205, 206, 207, 208))
    assert (draft.tokens, draft.source) == ((209, 210, 211, 212), "past"), "as many as were matched"
    assert guess(drafter, sequence(1, 2, 105, 106, 107, 108)) is NOTHING


def test_a_requests_own_text_is_preferred_where_it_expects_as_much() -> None:
    drafter = SuffixDrafter()
    drafter.forget(sequence(1), [5, 6, 7, 8, 1, 1])
    assert guess(drafter, sequence(5, 6, 7, 9, 5, 6, 7)).tokens == (8, 1, 1), "past: certain, one's own: one of two"
    assert guess(drafter, sequence(*[5, 6, 7, 9] * 5, 5, 6, 7)).source == "own"


def test_most_is_kept_and_nothing_is_remembered_of_a_forgotten_sequence() -> None:
    drafter, seq = SuffixDrafter(), sequence(*[1, 2, 3, 4] * 6)
    assert guess(drafter, seq, 2).tokens == (1, 2)
    drafter.forget(seq, [])
    assert drafter._own == {}


def test_memory_is_capped_and_the_oldest_go_first() -> None:
    drafter = SuffixDrafter(SuffixConfig(memory=400 * MAX_BYTES_PER_TOKEN))
    for start in range(0, 5000, 100):
        drafter.forget(sequence(1), list(range(start, start + 100)))
    assert drafter.past.num_tokens == 400
    assert drafter.past.size_bytes <= 400 * MAX_BYTES_PER_TOKEN
    assert guess(drafter, sequence(0, 4950, 4951, 4952)).tokens == (4953, 4954, 4955)
    assert guess(drafter, sequence(0, 50, 51, 52)) is NOTHING
    drafter.forget(sequence(1), list(range(500)))
    assert drafter.past.num_tokens == 400, "an answer longer than the memory is left out"


def saving(path: Path, fingerprint: str = "model:1") -> SuffixDrafter:
    return SuffixDrafter(SuffixConfig(file=path / "drafts" / "m.bin", fingerprint=fingerprint, vocab_size=1000))


def test_past_answers_survive_a_restart(tmp_path: Path) -> None:
    before = saving(tmp_path)
    before.forget(sequence(1), list(range(200, 240)))
    before.forget(sequence(1), [7, 7, 7])
    before.close()
    file = tmp_path / "drafts" / "m.bin"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["m.bin"]
    after = saving(tmp_path)
    assert after.past.sequences() == before.past.sequences()
    assert guess(after, sequence(1, 205, 206, 207)).tokens == (208, 209, 210)


def test_a_file_that_is_not_whole_or_foreign_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = saving(tmp_path)
    before.forget(sequence(1), [1, 2, 3])
    before.close()
    file = tmp_path / "drafts" / "m.bin"
    whole = file.read_bytes()
    broken = [whole[:-1], whole[:20], b"", whole[:-3] + b"xyz", MAGIC[:-1] + b"\x09" + whole[len(MAGIC) :]]
    for index, data in enumerate(broken):
        file.write_bytes(data)
        with caplog.at_level(logging.WARNING):
            assert saving(tmp_path).past.num_tokens == 0
        assert len(caplog.records) == index + 1
    file.write_bytes(whole)
    assert saving(tmp_path, "model:2").past.num_tokens == 0
    assert saving(tmp_path).past.num_tokens == 3


def test_every_flipped_byte_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_sequences(path, "f", [array("i", [1, 2, 3]), array("i", [4])])
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadWeights):
            read_sequences(path, "f", 10)
    path.write_bytes(whole)
    assert [list(tokens) for tokens in read_sequences(path, "f", 10)] == [[1, 2, 3], [4]]
    with pytest.raises(BadWeights, match="tokens"):
        read_sequences(path, "f", 4)


def test_nothing_saved_reads_as_nothing(tmp_path: Path) -> None:
    write_sequences(tmp_path / "x", "f", [])
    assert read_sequences(tmp_path / "x", "f", 10) == []
