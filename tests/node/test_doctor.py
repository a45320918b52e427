"""Doctor: what it says about machines, most of them made up, one of them this one."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal.node.cli import main
from shoal.node.config import NodeConfig
from shoal.node.doctor import can_serve, diagnose
from shoal.node.machine import Machine

GOOD = Machine(
    python="3.12.1",
    processor="a processor",
    num_cores=8,
    cpu_quota=None,
    instruction_sets=("avx2", "fma"),
    memory_total=16 * 10**9,
    memory_available=12 * 10**9,
    gpus=(),
    compiler="/usr/bin/cc",
    kernels="avx2",
    kernels_detail="built for avx2",
    torch=None,
    port_error=None,
    disk_free=10**11,
    can_write_home=True,
    stored="/models/x.gguf",
    stored_size=10**8,
    store_error=None,
)
CONFIG = NodeConfig(home=Path("/home"))


def test_a_good_machine_has_nothing_to_change() -> None:
    checks = diagnose(GOOD, CONFIG)
    assert {check.status for check in checks} == {"ok"}
    assert not any(check.advice for check in checks)
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize(
    ("machine", "config", "name", "status"),
    [
        ({"cpu_quota": 1.5}, {}, "cores", "warn"),
        ({}, {"threads": 9}, "cores", "warn"),
        ({"instruction_sets": ()}, {}, "instructions", "warn"),
        ({"instruction_sets": ("sse4_2",)}, {}, "instructions", "warn"),
        ({"memory_available": 5 * 10**7}, {}, "memory", "fail"),
        ({"memory_available": 15 * 10**7}, {}, "memory", "warn"),
        ({"memory_available": None}, {}, "memory", "ok"),
        ({"gpus": ("A GPU",)}, {}, "gpu", "warn"),
        ({"gpus": ("A GPU",), "torch": "2"}, {}, "gpu", "ok"),
        ({}, {"device": "cuda"}, "gpu", "fail"),
        ({"compiler": None}, {}, "compiler", "warn"),
        ({"kernels": "none"}, {}, "kernels", "fail"),
        ({"kernels": "none", "torch": "2"}, {}, "kernels", "warn"),
        ({"kernels": "none", "torch": "2"}, {"kernels": "native"}, "kernels", "fail"),
        ({}, {"kernels": "torch"}, "kernels", "fail"),
        ({"torch": "2"}, {"kernels": "torch"}, "kernels", "ok"),
        ({"port_error": "Address already in use"}, {}, "port", "warn"),
        ({}, {"host": "0.0.0.0"}, "port", "warn"),
        ({}, {"host": "0.0.0.0", "api_keys": ("k",)}, "port", "ok"),
        ({"stored": None}, {}, "model", "warn"),
        ({"stored": None, "store_error": "not there"}, {"model": "other"}, "model", "fail"),
        ({"stored": None, "disk_free": 10**6}, {}, "disk", "fail"),
        ({"stored": None, "can_write_home": False}, {}, "disk", "fail"),
        ({"disk_free": 10**6, "can_write_home": False}, {}, "disk", "ok"),
    ],
)
def test_each_trouble_is_seen_and_comes_with_advice(
    machine: dict[str, Any], config: dict[str, Any], name: str, status: str
) -> None:
    checks = diagnose(replace(GOOD, **machine), replace(CONFIG, **config))
    (check,) = [check for check in checks if check.name == name]
    assert check.status == status
    assert bool(check.advice) == (status != "ok")
    assert can_serve(checks) == all(check.status != "fail" for check in checks)


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "not there yet"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["doctor", "--json", "--port", str(taken.getsockname()[1])]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in answer["checks"]}
    assert answer["can_serve"] is True
    assert found["port"]["status"] == "warn"
    assert "in use" in found["port"]["found"]
    assert found["model"]["status"] == "warn"
    assert not (tmp_path / "not there yet").exists()


def test_the_exit_code_says_that_it_cannot_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path))
    assert main(["doctor", "--model", "nobody-has-this"]) == 1
    assert "fail" in capsys.readouterr().out
