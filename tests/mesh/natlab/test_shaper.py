"""The shaper does what it says: delay both ways, its share of losses, order, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from natlab import NatLab, Shaped, run
from natstage import Cell, Stage, note

pytestmark = pytest.mark.natlab

TALK = """
import json, socket, sys, time
kind, host, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "udp":
    talk = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    talk.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)
    talk.connect((host, 9))
    talk.settimeout(1.0)
    times, got = [], []
    for n in range(count):
        talk.send(n.to_bytes(4, "big")); begin = time.monotonic()
        if count <= 20:
            talk.recv(9); times.append(time.monotonic() - begin)
    try:
        while count > 20: got.append(int.from_bytes(talk.recv(9), "big"))
    except TimeoutError: pass
    print(json.dumps({"rtt_s": sorted(times)[len(times) // 2] if times else None, "got": got}))
else:
    talk = socket.create_connection((host, 9))
    sent = bytes(range(256)) * count; talk.sendall(sent); talk.shutdown(socket.SHUT_WR)
    back = b""
    while more := talk.recv(1 << 20): back += more
    print(json.dumps(back == sent))
"""
ECHO = """
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: only the shaper loses packets here
udp.bind(("", 9))
tcp = socket.create_server(("", 9))
def serve():
    talk, _ = tcp.accept(); data = b""
    while more := talk.recv(1 << 20): data += more
    talk.sendall(data); talk.close()
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    data, who = udp.recvfrom(9)
    udp.sendto(data, who)
"""


@pytest.fixture
def two(lab: NatLab) -> Iterator[tuple[str, str]]:
    """Two empty namespaces; `lab` says whether there can be any."""
    names = [f"{lab.prefix}-{name}" for name in "xy"]
    for name in names:
        run("ip", "netns", "add", name)
    yield names[0], names[1]
    for name in names:
        run("ip", "netns", "del", name)


def through(two: tuple[str, str], delay_ms: float, loss: float, kind: str, count: int) -> object:
    """Talk from one end of a shaped link to an echo at its other end."""
    with Shaped(*two, "shp", delay_ms, loss, seed=7):
        for name, own, other in ((two[0], "10.9.0.1", "10.9.0.2"), (two[1], "10.9.0.2", "10.9.0.1")):
            run("ip", "-n", name, "addr", "add", own, "peer", other, "dev", "shp")
        inside = ["ip", "netns", "exec"]
        with subprocess.Popen([*inside, two[1], sys.executable, "-c", ECHO], stdout=subprocess.PIPE) as echo:
            assert echo.stdout is not None
            assert echo.stdout.readline() == b"ready\n"
            answer = run(*inside, two[0], sys.executable, "-c", TALK, kind, "10.9.0.2", str(count))
            echo.kill()
    return json.loads(answer)


def test_a_round_trip_takes_twice_the_delay(two: tuple[str, str]) -> None:
    seen = through(two, 25, 0.0, "udp", 9)
    assert 0.050 <= seen["rtt_s"] < 0.075, seen  # type: ignore[index]


def test_its_share_of_packets_is_lost_and_order_is_kept(two: tuple[str, str]) -> None:
    """Both ways lose 10 %: 81 % come back; 2,000 packets stray at most 4 standard deviations (0.88 %) from it."""
    got = through(two, 1, 0.10, "udp", 2000)["got"]  # type: ignore[index]
    assert abs(len(got) / 2000 - 0.81) < 0.0352, len(got)
    assert got == sorted(set(got))


def test_tcp_survives_loss_and_every_byte_arrives(two: tuple[str, str]) -> None:
    assert through(two, 2, 0.01, "tcp", 2000) is True


def test_two_nats_far_apart_and_lossy_are_crossed_all_the_same(stage: Stage, lab: NatLab) -> None:
    with lab.shaped_a(delay_ms=40, loss=0.01):
        other, seen = stage.link(Cell("portres", "portres", ()), wait_s=10)
        note({"shaped": "40 ms each way, 1 % loss", **seen})
        assert seen["path"] == "punched", seen
        assert 0.080 <= stage.a.ask("echo", peer=other) < 2
        assert stage.a.ask("echo", peer=other, size=500_000) < 20
        assert stage.a.ask("info", peer=other)["rtt_s"] >= 0.080
