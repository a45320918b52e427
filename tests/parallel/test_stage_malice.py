"""What an asker could try: kernels behind a stage check nothing, so nothing out of bounds may reach them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from shoal.core.encoding import encode
from shoal.core.errors import Overloaded, PeerFault
from shoal.models.batch import Batch
from shoal.parallel.frames import (
    MAX_VALUES,
    CopyFrame,
    Open,
    Rows,
    StageInfo,
    StepFrame,
    read_frame,
    read_info,
    read_offers,
    read_open,
    write_copy,
    write_info,
    write_offers,
    write_open,
    write_step,
)
from shoal.parallel.host import _obey
from shoal.parallel.stage import Stage

INFO = StageInfo("tiny", b"d" * 32, 1, 5, 6, 8, 16, 256)


class Recorded:
    """Layers that note what they were told to touch."""

    num_blocks, block_size = 20, 16

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.copies: list[tuple[int, int]] = []

    def run(self, batch: Batch) -> np.ndarray:
        self.slots += batch.slots.tolist()
        assert batch.inputs is not None
        return batch.inputs + 1

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.copies += pairs

    def close(self) -> None: ...


def step(*seqs: tuple[int, int, tuple[int, ...]]) -> StepFrame:
    rows = tuple(Rows(*seq) for seq in seqs)
    return StepFrame(rows, np.zeros((sum(item.count for item in rows), 8), np.float32))


def test_a_session_touches_its_own_blocks_only() -> None:
    layers = Recorded()
    stage = Stage(INFO, layers)
    first, second = stage.take(4), stage.take(4)
    stage.step(second, step((0, 20, (0, 1)), (0, 3, (3,))))
    own = {int(block) for block in second.blocks}
    assert {slot // 16 for slot in layers.slots} == {int(second.blocks[index]) for index in (0, 1, 3)} <= own
    assert not own & set(first.blocks.tolist())
    stage.copy(second, CopyFrame(((0, 2),)))
    assert layers.copies == [(int(second.blocks[0]), int(second.blocks[2]))]


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (step((0, 5, (4,))), "below 4"),
        (step((0, 5, (0, 1))), "expected 1 blocks"),
        (step((0, 17, (0,))), "expected 2 blocks"),
        (step((250, 7, tuple(range(17)))), "positions below 256"),
        (step((5, 1, (0,))), "computed by this session"),
        (step((16, 1, (0, 1))), "computed by this session"),
        (step((0, 5, (0,)), (5, 1, (1,))), "computed by this session"),
        (step((0, 17, (1, 1))), "each block once"),
    ],
)
def test_a_step_out_of_bounds_is_refused_before_it_runs(frame: StepFrame, word: str) -> None:
    layers = Recorded()
    stage = Stage(INFO, layers)
    with pytest.raises(PeerFault, match=word):
        stage.step(stage.take(4), frame)
    assert layers.slots == []


def test_what_the_last_session_left_in_the_cache_cannot_be_read() -> None:
    """Attending to positions one never computed would read another asker's keys and values."""
    stage = Stage(INFO, Recorded())
    first = stage.take(20)
    stage.step(first, step((0, 64, (0, 1, 2, 3))))
    stage.give_back(first)
    second = stage.take(20)
    with pytest.raises(PeerFault, match="computed by this session"):
        stage.step(second, step((64, 1, (0, 1, 2, 3, 4))))
    with pytest.raises(PeerFault, match="expected"):
        stage.step(first, step((0, 1, (0,))))  # whoever gave its blocks back has none


def test_a_copy_carries_what_is_known_and_nothing_more() -> None:
    stage = Stage(INFO, Recorded())
    session = stage.take(4)
    stage.step(session, step((0, 10, (0,))))
    stage.copy(session, CopyFrame(((0, 2), (3, 1))))
    stage.step(session, step((10, 1, (2,))))
    for frame in (step((11, 1, (0,))), step((1, 1, (1,)))):
        with pytest.raises(PeerFault, match="computed by this session"):
            stage.step(session, frame)
    with pytest.raises(PeerFault, match="below 4"):
        stage.copy(session, CopyFrame(((0, 4),)))


def test_copies_are_bounded_and_cost_as_much_as_tokens() -> None:
    stage = Stage(INFO, layers := Recorded())
    session = stage.take(2)
    with pytest.raises(PeerFault, match="at most 2 copies"):
        stage.copy(session, CopyFrame(((0, 1),) * 3))
    assert layers.copies == []
    message = memoryview(b"".join(bytes(part) for part in write_copy([(0, 1), (1, 0)])))
    answer, num_tokens = _obey(stage, session, message)
    assert (answer, num_tokens) == ([], 2 * (INFO.last - INFO.first) / INFO.num_layers)


def test_control_of_a_million_values_is_refused_before_one_is_made() -> None:
    control = encode(["step", [[0, 1, [1] * MAX_VALUES]]])
    with pytest.raises(PeerFault, match="values"):
        read_frame(len(control).to_bytes(4, "little") + control, 8)


def test_a_cache_that_is_taken_is_refused_and_comes_back() -> None:
    stage = Stage(INFO, Recorded())
    session = stage.take(15)
    with pytest.raises(Overloaded, match="80 tokens of cache are free"):
        stage.take(6)
    stage.give_back(session)
    assert stage.take(20).num_blocks == 20


def test_frames_read_back_as_they_were_written() -> None:
    stream = np.arange(24, dtype=np.float32).reshape(3, 8)
    frame = read_frame(b"".join(bytes(part) for part in write_step([Rows(4, 3, (2,))], stream)), 8)
    assert isinstance(frame, StepFrame)
    assert frame.seqs == (Rows(4, 3, (2,)),)
    np.testing.assert_array_equal(frame.stream, stream)
    assert read_frame(b"".join(write_copy([(1, 2)])), 8) == CopyFrame(((1, 2),))
    wish = Open(b"d" * 32, 1, 5, 9)
    assert read_open(write_open(wish)) == wish
    assert read_info(write_info(INFO)) == INFO
    assert read_offers(write_offers([INFO, INFO])) == (INFO, INFO)


def test_states_that_are_not_numbers_are_refused() -> None:
    for value in (np.nan, np.inf, -np.inf, 1e9, -1e9):
        parts = write_step([Rows(0, 1, (0,))], np.full((1, 8), value, np.float32))
        with pytest.raises(PeerFault, match="finite"):
            read_frame(b"".join(bytes(part) for part in parts), 8)


@pytest.mark.parametrize(
    "control",
    [
        ["step", []],
        ["step", [[0, 0, []]]],
        ["step", [[-1, 1, [0]]]],
        ["step", [[0, 5000, [0]]]],
        ["step", [[0, 1, [-1]]]],
        ["step", [[0, 1, [0]]] * 300],
        ["copy", [[1]]],
        ["open", []],
        ["step"],
        {"step": 1},
        7,
    ],
)
def test_control_that_means_nothing_is_a_peers_fault(control: object) -> None:
    data = encode(control)
    with pytest.raises(PeerFault):
        read_frame(len(data).to_bytes(4, "little") + data, 8)


def test_bent_frames_are_a_frame_or_a_peers_fault() -> None:
    """Invariant: never another exception, never an array of another shape than the control said."""
    chance = random.Random(4)
    stream = np.ones((3, 8), np.float32)
    whole = b"".join(bytes(part) for part in write_step([Rows(0, 2, (0,)), Rows(3, 1, (1,))], stream))
    readers = (lambda data: read_frame(data, 8), read_open, read_info, read_offers)
    for _ in range(1500):
        bent = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            if bent:
                bent[chance.randrange(len(bent))] = chance.randrange(256)
        try:
            frame = chance.choice(readers)(bytes(bent))
        except PeerFault:
            continue
        assert isinstance(frame, CopyFrame) or frame.stream.shape == (sum(s.count for s in frame.seqs), 8)  # type: ignore[union-attr]
