"""Real NATs: network namespaces, nftables and conntrack of this machine's kernel; nothing leaves it.

      [pub 44.128.1.10]   [pub2 44.128.1.11]      public hosts: relays, observers
               \\             /
      ( inet: a bridge, 44.128.1.0/24, 2a44:1::/64 )     no uplink; what is not here is silently lost
               /             \\
      [ra .101]             [rb .102]             routers: NAT for IPv4, a stateful firewall for IPv6
          |                      |
        [ia]                     |                an inner router: only with `double` does it translate
          |                      |
      [a 192.168.11.2]      [b 192.168.22.2]      also 2a44:a::2 and 2a44:b::2, unless IPv6 is off

Kinds of NAT (RFC 4787):
  open       fullcone: the port is kept, every unsolicited packet reaches the host
  portres    port-restricted cone: the port is kept for all destinations, only known address:port pairs come in
  symmetric  a new random port for each destination
  noudp      portres, and no UDP at all
  nonat      plain routing, IPv4 included

44.128.0.0/16, because the documentation ranges are treated as unroutable by peers. A router drops unsolicited packets
to itself, as home routers do: if it answered, conntrack would hold their ports and remap the later punch.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal["open", "portres", "symmetric", "noudp", "nonat"]
Side = Literal["a", "b"]

PUBLIC = {"pub": "44.128.1.10", "pub2": "44.128.1.11"}
WAN = {"a": "44.128.1.101", "b": "44.128.1.102"}
HOST = {"a": "192.168.11.2", "b": "192.168.22.2"}
GATEWAY = {"a": "192.168.11.1", "b": "192.168.22.1"}
INNER = ("10.11.0.1", "10.11.0.2")
TOOLS = ("ip", "nft", "conntrack")
WORKER = Path(__file__).with_name("natworker.py")
SHAPER = Path(__file__).with_name("shaper.py")

MAPPING_CONFIG = """
ext_ifname=wan
ext_ip={outside}
listening_ip=lan
enable_natpmp={natpmp}
enable_upnp={upnp}
http_port=5555
secure_mode=yes
upnp_forward_chain=miniupnpd
upnp_nat_chain=premap
upnp_nat_postrouting_chain=postmap
upnp_table_name=mapping
upnp_nat_table_name=mapping
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.22.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
MAPPING_RULES = """
table inet mapping {
  chain miniupnpd { }
  chain premap { }
  chain postmap { }
  chain forward { type filter hook forward priority -1; jump miniupnpd
  }
  chain pre { type nat hook prerouting priority -101; jump premap
  }
  chain post { type nat hook postrouting priority 99; jump postmap
  }
}
"""


def why_not() -> str | None:
    """Why there can be no lab here, None where there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"natlab: no {', '.join(missing)} on PATH (Debian: apt-get install iproute2 nftables conntrack)"
    if os.geteuid() != 0:
        return "natlab: network namespaces need root"
    name = f"natlab-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"natlab: no network namespaces here: {made.stderr.strip()}"
    tried = subprocess.run(["ip", "netns", "exec", name, "nft", "list", "ruleset"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"natlab: no nftables in a namespace: {tried.stderr.strip()}" if tried.returncode else None


def run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, text=True, capture_output=True, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class NatLab:
    """The namespaces of one lab; `prefix` keeps labs apart."""

    NAMES = ("inet", "pub", "pub2", "ra", "rb", "ia", "a", "b")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._workers: list[Worker] = []

    def ns(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def ip(self, name: str, command: str) -> str:
        return run("ip", "-n", self.ns(name), *command.split())

    def inside(self, name: str, *command: str, given: str | None = None) -> str:
        return run("ip", "netns", "exec", self.ns(name), *command, given=given)

    # ---- the wires

    def up(self) -> NatLab:
        for name in self.NAMES:
            run("ip", "netns", "add", self.ns(name))
            self.ip(name, "link set lo up")
        self.ip("inet", "link add br0 type bridge")
        self.ip("inet", "link set br0 up")
        self.ip("inet", "addr add 44.128.1.1/24 dev br0")
        for number, (name, address) in enumerate([*PUBLIC.items(), ("ra", WAN["a"]), ("rb", WAN["b"])], 10):
            self._plug_in(name, address, number)
        self._wire("ia", "wan", "ra", "lan", f"{INNER[1]}/30", f"{INNER[0]}/30", "2a44:aa::2/64", "2a44:aa::1/64")
        self._wire("a", "eth0", "ia", "lan", f"{HOST['a']}/24", f"{GATEWAY['a']}/24", "2a44:a::2/64", "2a44:a::1/64")
        self._wire("b", "eth0", "rb", "lan", f"{HOST['b']}/24", f"{GATEWAY['b']}/24", "2a44:b::2/64", "2a44:b::1/64")
        self.ip("ia", f"route add default via {INNER[0]}")
        self.ip("ia", "-6 route add default via 2a44:aa::1")
        self.ip("ra", f"route add 192.168.11.0/24 via {INNER[1]}")
        self.ip("ra", "-6 route add 2a44:a::/64 via 2a44:aa::2")
        for side in ("a", "b"):
            self.ip(side, f"route add default via {GATEWAY[side]}")
            self.ip(side, f"-6 route add default via 2a44:{side}::1")
        for router in ("ra", "rb", "ia"):
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                self.inside(router, "sysctl", "-qw", f"{key}=1")
        self.translate("ia", "nonat", HOST["a"])
        return self

    def _plug_in(self, name: str, address: str, number: int) -> None:
        device = "wan" if name.startswith("r") else "eth0"
        port = f"p-{name}"
        run(*f"ip link add {device} netns {self.ns(name)} type veth peer name {port} netns {self.ns('inet')}".split())
        self.ip("inet", f"link set {port} master br0 up")
        self.ip(name, f"addr add {address}/24 dev {device}")
        self.ip(name, f"addr add 2a44:1::{number}/64 dev {device} nodad")
        self.ip(name, f"link set {device} up")
        self.ip(name, "route add default via 44.128.1.1")
        for side, router in (("a", 12), ("b", 13)):
            if name != f"r{side}":
                self.ip(name, f"-6 route add 2a44:{side}::/64 via 2a44:1::{router}")

    def _wire(self, inner: str, device: str, outer: str, port: str, *addresses: str) -> None:
        run(*f"ip link add {device} netns {self.ns(inner)} type veth peer name {port} netns {self.ns(outer)}".split())
        four, gateway, six, gateway6 = addresses
        for name, end, own, own6 in ((inner, device, four, six), (outer, port, gateway, gateway6)):
            self.ip(name, f"addr add {own} dev {end}")
            self.ip(name, f"addr add {own6} dev {end} nodad")
            self.ip(name, f"link set {end} up")

    # ---- the NATs

    def set_nat(self, side: Side, kind: Kind, *, double: bool = False, ipv6: bool = False) -> None:
        """What lies between `side` and the others from now on; mappings made before are forgotten."""
        self.translate(f"r{side}", kind, HOST[side], ipv6=ipv6)
        if side == "a":
            self.translate("ia", "portres" if double else "nonat", HOST["a"], ipv6=ipv6)
        state = "0" if ipv6 else "1"
        self.inside(side, "sysctl", "-qw", f"net.ipv6.conf.eth0.disable_ipv6={state}")
        if ipv6:
            device = f"addr replace 2a44:{side}::2/64 dev eth0 nodad"
            self.ip(side, device)
            self.ip(side, f"-6 route replace default via 2a44:{side}::1")
        for name in ("pub", "pub2", "rb" if side == "a" else "ra"):
            verb = "replace" if kind == "nonat" else "del"
            route = f"route {verb} {HOST[side].rsplit('.', 1)[0]}.0/24 via {WAN[side]}"
            subprocess.run(["ip", "-n", self.ns(name), *route.split()], capture_output=True, check=False)

    def translate(self, router: str, kind: Kind, host: str, *, ports: str = "", ipv6: bool = False) -> None:
        """Give a router its rules and forget its mappings. `ports` ("40000-49999"): the outside ports it uses."""
        source = f"masquerade to :{ports}" if ports else "masquerade"
        masquerade = {
            "open": source, "portres": source, "noudp": source, "nonat": "accept",
            "symmetric": "masquerade random,fully-random",
        }[kind]  # fmt: skip
        inward = f"iifname wan meta l4proto {{ tcp, udp }} fib daddr type local dnat ip to {host}"
        strangers = "accept" if kind in ("open", "nonat") else "drop"
        rules = f"""
flush ruleset
table ip nat {{
  chain pre {{ type nat hook prerouting priority -100; {inward if kind == "open" else ""}
  }}
  chain post {{ type nat hook postrouting priority 100; oifname wan meta l4proto {{ tcp, udp }} {masquerade}
  }}
}}
table inet guard {{
  chain forward {{ type filter hook forward priority 0; policy accept;
    {"meta l4proto udp drop" if kind == "noudp" else ""}
    ct state established,related accept
    ct status dnat accept
    meta nfproto ipv6 iifname wan {"ct state new drop" if ipv6 else "drop"}
    iifname wan {strangers}
  }}
  chain input {{ type filter hook input priority 0; policy accept;
    ct state established,related accept
    iifname wan meta l4proto {{ tcp, udp }} drop
  }}
}}
"""
        self.inside(router, "nft", "-f", "-", given=rules)
        self.forget(router)

    def forget(self, router: str) -> None:
        """The router loses its table of mappings, as after a restart."""
        self.inside(router, "conntrack", "-F")

    @contextlib.contextmanager
    def shaped_a(self, delay_ms: float, loss: float) -> Iterator[None]:
        """Put delay (one way) and loss between host a and its routers, for both of its IP families."""
        with Shaped(self.ns("a"), self.ns("ia"), "shp", delay_ms, loss, seed=1):
            self.ip("a", f"route replace default dev shp src {HOST['a']}")
            self.ip("ia", f"route replace {HOST['a']}/32 dev shp")
            try:
                yield
            finally:
                self.ip("a", f"route replace default via {GATEWAY['a']}")
                self.ip("ia", f"route del {HOST['a']}/32")

    @contextlib.contextmanager
    def mapping_daemon(self, folder: Path, protocol: str = "natpmp") -> Iterator[None]:
        """miniupnpd on router b, as on home routers: "natpmp" or "upnp" for the hosts behind it."""
        self.inside("rb", "nft", "-f", "-", given=MAPPING_RULES)
        config = folder / "miniupnpd.conf"
        config.write_text(
            MAPPING_CONFIG.format(outside=WAN["b"], **{p: "yes" if p == protocol else "no" for p in ("natpmp", "upnp")})
        )
        command = ["ip", "netns", "exec", self.ns("rb"), "miniupnpd", "-d", "-f", str(config), "-P", f"{config}.pid"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as daemon:
            assert daemon.stdout is not None
            said = []
            for line in daemon.stdout:
                said.append(line)
                if ("Listening for NAT-PMP" if protocol == "natpmp" else "HTTP listening") in line:
                    break
            else:
                raise RuntimeError(f"miniupnpd did not start: {''.join(said)}")
            try:
                yield
            finally:
                daemon.terminate()

    # ---- processes

    def worker(self, name: str) -> Worker:
        """A node process in the namespace `name`; see natworker."""
        worker = Worker(self.ns(name))
        self._workers.append(worker)
        return worker

    def down(self) -> None:
        for worker in self._workers:
            worker.end()
        have = {line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()}
        for name in self.NAMES:
            if self.ns(name) in have:
                run("ip", "netns", "del", self.ns(name))


class Shaped:
    """A context: a link with delay and loss between two namespaces, a TUN device at each end. See shaper."""

    def __init__(self, one: str, other: str, device: str, delay_ms: float, loss: float, seed: int) -> None:
        given = [one, other, device, str(delay_ms), str(loss), str(seed)]
        self._process = subprocess.Popen(
            [sys.executable, str(SHAPER), *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the shaper did not start; see its words above")

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=5)


class Worker:
    """A node process: JSON commands in, JSON results out, several at a time."""

    def __init__(self, namespace: str) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, str(WORKER)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._next = 0
        self._results: dict[int, dict[str, Any]] = {}
        self._buffer = b""

    def begin(self, command: str, **given: Any) -> int:
        """Start a command; its ticket."""
        self._next += 1
        line = json.dumps({"id": self._next, "command": command, **given}).encode() + b"\n"
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._next

    def result(self, ticket: int, within_s: float = 40.0) -> Any:
        """What the command of that ticket gave; AssertionError with the worker's words where it failed."""
        until = time.monotonic() + within_s
        while ticket not in self._results:
            for line in self._lines(until):
                self._results[line["id"]] = line
        answer = self._results.pop(ticket)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["result"]

    def ask(self, command: str, **given: Any) -> Any:
        return self.result(self.begin(command, **given))

    def _lines(self, until: float) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise WorkerFailed("no answer in time")
        more = os.read(self._process.stdout.fileno(), 1 << 20)
        if not more:
            raise WorkerFailed(f"the worker ended with {self._process.wait()}")
        *lines, self._buffer = (self._buffer + more).split(b"\n")
        yield from (json.loads(line) for line in lines)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class WorkerFailed(Exception):
    """A worker's command did not do what it was asked."""
