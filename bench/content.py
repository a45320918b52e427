"""A file fetched from one and from four peers over TCP, each piece checked, against a plain HTTP download of it; and
what a new version of the file moves.

Claim: one changed tensor or an insertion moves at most 2 % of a file of 96 MB. How far a fetch that is encrypted
and checked piece by piece falls behind an HTTP server that does neither is measured, not claimed.

    python bench/content.py [--quick]

Everybody is on this machine and shares its cores: four seeders do not have four machines' cores here. HTTP is Python's
own `http.server` read by `http.client` in pieces of 1 MiB and written to disk; both sides' times end with the file
synced.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.environment import cache
from common.peer import Peer
from common.report import finish, machine, summary, table

TENSOR_BYTES = 207_360


def made(folder: Path, size: int) -> dict[str, Path]:
    """The file and two new versions of it, always the same."""
    data = bytearray(random.Random(1).randbytes(size))
    files = {name: folder / f"{name}-{size}" for name in ("old", "tensor", "insertion")}
    files["old"].write_bytes(data)
    middle = size // 3
    files["insertion"].write_bytes(data[:4096] + b"a longer header" * 10 + data[4096:])
    data[middle : middle + TENSOR_BYTES] = random.Random(2).randbytes(TENSOR_BYTES)
    files["tensor"].write_bytes(data)
    return files


@contextmanager
def http_server(folder: Path) -> Iterator[int]:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split(" port ")[1].split()[0])
    finally:
        process.terminate()
        process.wait()


def download(port: int, name: str, target: Path) -> float:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/{name}")
    response = connection.getresponse()
    with target.open("wb") as file:
        while data := response.read(2**20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    connection.close()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    size, turns = (24, 3) if quick else (96, 7)
    folder, python = cache("content"), Path(sys.executable)
    files = made(folder, size * 2**20)
    figures, moved = defaultdict[str, list[float]](list), dict[str, int]()
    with ExitStack() as stack:
        port = stack.enter_context(http_server(folder))
        seeders = [stack.enter_context(Peer(f"seeder_{n}", python, "content_shoal.py")) for n in range(4)]
        peers = [seeder.ask("share", path=str(files["old"])) for seeder in seeders]
        client = stack.enter_context(Peer("fetcher", python, "content_shoal.py"))
        client.ask("connect", peers=peers)
        target = folder / "fetched"
        for _ in range(turns):
            figures["http.server"].append(size * 2**20 / 1e6 / download(port, files["old"].name, target))
            for count in (1, 4):
                answer = client.ask("fetch", blob=peers[0]["blob"], path=str(target), peers=count, older=[])
                figures[f"shoal, {count} seeder{'s' * (count > 1)}"].append(answer["bytes"] / 1e6 / answer["seconds"])
        assert target.read_bytes() == files["old"].read_bytes()
        for name in ("tensor", "insertion"):
            seeder = stack.enter_context(Peer(f"seeder_{name}", python, "content_shoal.py"))
            source = seeder.ask("share", path=str(files[name]))
            taker = stack.enter_context(Peer(f"fetcher_{name}", python, "content_shoal.py"))
            taker.ask("connect", peers=[source])
            older = [str(files["old"])]
            moved[name] = taker.ask("fetch", blob=source["blob"], path=str(target), peers=1, older=older)["bytes"]
    rows = [{"who": who, **summary(values)} for who, values in figures.items()]
    table(
        ("MB/s", "median", "min", "max"),
        [(row["who"], *(f"{row[key]:.0f}" for key in ("median", "min", "max"))) for row in rows],  # type: ignore[misc]
    )
    for name, count in moved.items():
        print(f"new version ({name}): {count / 1e6:.2f} MB of {size * 2**20 / 1e6:.0f} MB moved")
    plain = summary(figures["http.server"])["median"]
    ratios = {
        "content_http_1": summary(figures["shoal, 1 seeder"])["median"] / plain,
        "content_http_4": summary(figures["shoal, 4 seeders"])["median"] / plain,
        **{f"content_version_{name}": size * 2**20 / count for name, count in moved.items()},
    }
    finish("content", [*rows, {"moved_bytes": moved}], ratios, machine())


if __name__ == "__main__":
    main()
