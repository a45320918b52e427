"""The chain: gaps, other orders and forks are found; on the disk it outlives a kill, and grows only so far."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from receipt_makers import KEY, PEER_KEY, REQUEST, sealer, signed_by

from shoal.core.errors import BadConfig, LocalError
from shoal.core.receipt import ModelIdentity, Receipt
from shoal.trust import shelf as shelf_module
from shoal.trust.chain import check_chain, first_head, head_after
from shoal.trust.receipt import sign
from shoal.trust.shelf import Openings, Shelf


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> list[Receipt]:
    made = sealer(tmp_path_factory.mktemp("chain"))
    return [signed_by(made, replace(REQUEST, request_id=f"r-{number}")).receipt for number in range(5)]


def test_a_whole_chain_holds_in_any_order_of_the_files(receipts: list[Receipt]) -> None:
    assert [receipt.sequence for receipt in receipts] == [1, 2, 3, 4, 5]
    assert receipts[0].previous == first_head(KEY.public)
    assert check_chain(receipts) == check_chain(receipts[::-1]) == check_chain(receipts[2:]) == []
    assert check_chain([*receipts, receipts[2]]) == []


def test_what_is_left_out_is_noticed(receipts: list[Receipt]) -> None:
    assert check_chain([*receipts[:2], *receipts[3:]]) == ["gap: number 3 is missing"]
    assert check_chain([receipts[0], receipts[4]]) == ["gap: numbers 2 to 4 are missing"]


def test_renumbered_to_close_a_gap_is_noticed(receipts: list[Receipt]) -> None:
    """The signer drops its second receipt and numbers the rest anew: the heads tell."""
    again = [receipts[0], *(sign(replace(item, sequence=item.sequence - 1), KEY) for item in receipts[2:])]
    assert "number 2 does not follow the number 1 given here" in check_chain(again)


def test_two_swapped_are_noticed(receipts: list[Receipt]) -> None:
    second, third = receipts[1], receipts[2]
    swapped = [sign(replace(third, sequence=2), KEY), sign(replace(second, sequence=3), KEY)]
    assert len(check_chain([receipts[0], *swapped, *receipts[3:]])) >= 2


def test_two_of_one_number_are_a_fork(receipts: list[Receipt]) -> None:
    other = sign(replace(receipts[1], created=9), KEY)
    assert check_chain([*receipts, other])[0].startswith("fork: two different receipts have number 2")


def test_a_first_one_that_begins_elsewhere_and_a_clock_set_back_are_noticed(receipts: list[Receipt]) -> None:
    assert "something came before" in check_chain([replace(receipts[0], previous=bytes(32))])[0]
    assert check_chain([replace(receipts[0], sequence=0)])
    late = replace(receipts[0], created=receipts[1].created + 10_000)
    assert "dated before" in check_chain([late, replace(receipts[1], previous=head_after(late))])[0]


def test_nodes_have_chains_of_their_own(receipts: list[Receipt], tmp_path: Path) -> None:
    other = signed_by(sealer(tmp_path, PEER_KEY)).receipt
    assert other.sequence == 1
    assert check_chain([*receipts, other]) == []


# ---- on the disk --------------------------------------------------------------------------------------------


def make(sequence: int, head: bytes) -> Receipt:
    return sign(Receipt(request_id=f"r-{sequence}", model=ModelIdentity("m"), sequence=sequence, previous=head), KEY)


def test_it_goes_on_after_a_restart_and_is_the_owners_alone(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        shelf = Shelf(tmp_path / "receipts")
        assert shelf.append(KEY.public, make).sequence == number
        shelf.close()
    shelf = Shelf(tmp_path / "receipts")
    assert check_chain(shelf.newest(10)) == shelf.problems(KEY.public) == []
    found = shelf.find("r-2")
    assert found is not None
    assert found.sequence == 2
    assert shelf.find("3") == shelf.newest(1)[0]
    assert shelf.find("nobody") is None
    assert oct((tmp_path / "receipts").stat().st_mode)[-3:] == "700"
    for file in (tmp_path / "receipts").iterdir():
        assert oct(file.stat().st_mode)[-3:] == "600"


def test_threads_make_one_chain(tmp_path: Path) -> None:
    shelf, other = Shelf(tmp_path), Shelf(tmp_path)
    threads = [
        threading.Thread(target=lambda own=own: [own.append(KEY.public, make) for _ in range(10)])
        for own in (shelf, other, shelf)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [receipt.sequence for receipt in shelf.newest(100)] == list(range(1, 31))
    assert shelf.problems(KEY.public) == check_chain(shelf.newest(100)) == []


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_chain import make, KEY, Shelf
shelf = Shelf(Path(sys.argv[1]))
while True:
    print(shelf.append(KEY.public, make).sequence, flush=True)
"""


def test_what_was_given_out_outlives_a_kill(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), here], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait(30)
    shelf = Shelf(tmp_path)
    number = shelf.append(KEY.public, make).sequence
    assert number in (told[-1] + 1, told[-1] + 2)  # one may have been written and not yet told
    assert check_chain(shelf.newest(10_000)) == shelf.problems(KEY.public) == []


def test_old_ones_leave_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "PRUNE_EVERY", 4)
    shelf = Shelf(tmp_path, max_bodies=5)
    for _ in range(20):
        shelf.append(KEY.public, make)
    assert [receipt.sequence for receipt in shelf.newest(100)] == [16, 17, 18, 19, 20]
    assert shelf.find("r-3") is None
    assert shelf.num_signed() == 20
    assert shelf.problems(KEY.public) == []
    with sqlite3.connect(tmp_path / "chain.sqlite") as database:
        database.execute("DELETE FROM receipts WHERE sequence = 3")
    assert shelf.problems(KEY.public) == ["gap: number 3 is missing"]
    with sqlite3.connect(tmp_path / "chain.sqlite") as database:
        database.execute("UPDATE receipts SET digest = ? WHERE sequence = 7", (bytes(32),))
    assert shelf.problems(KEY.public)[1:] == ["number 7 does not follow the one before it"]


def test_the_oldest_are_forgotten_but_for_the_head_they_led_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "PRUNE_EVERY", 4)
    shelf = Shelf(tmp_path, max_bodies=5, max_digests=10)
    for _ in range(30):
        shelf.append(KEY.public, make)
    assert shelf.num_signed() == 12
    assert shelf.problems(KEY.public) == []
    with sqlite3.connect(tmp_path / "chain.sqlite") as database:
        database.execute("DELETE FROM receipts WHERE sequence = 19")
    assert shelf.problems(KEY.public) == ["gap: number 19 is missing"]


def test_a_file_that_is_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "chain.sqlite").write_bytes(b"not a database at all, and long enough to be read as one" * 50)
    with pytest.raises(BadConfig, match=r"chain\.sqlite"):
        Shelf(tmp_path)


def test_a_shelf_that_cannot_write_gives_nothing_out(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.close()
    with pytest.raises(LocalError, match="not given out"):
        shelf.append(KEY.public, make)


def test_openings_are_few_and_in_memory(tmp_path: Path) -> None:
    opening = signed_by(sealer(tmp_path)).opening
    assert opening is not None
    kept = Openings(max_count=3)
    for number in range(5):
        kept.keep(f"r-{number}", opening)
    assert [kept.get(f"r-{number}") is not None for number in range(5)] == [False, False, True, True, True]
    small = Openings(max_bytes=10)
    small.keep("r", opening)
    assert small.get("r") is None
    assert all(b"secret" not in file.read_bytes() for file in tmp_path.iterdir())
