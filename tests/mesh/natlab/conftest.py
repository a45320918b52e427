"""The lab of this folder's tests: made once, its NATs changed from test to test, its processes kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from natlab import NatLab, why_not
from natstage import Stage

HERE = Path(__file__).parent
WHY_NOT = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there can be no lab its tests are deselected, and the summary says why in one line."""
    mine = [item for item in items if HERE in item.path.parents and "lab" in getattr(item, "fixturenames", ())]
    reason = why_not() if mine else None
    if mine and reason is None and shutil.which("miniupnpd") is None:
        reason = "natlab: no miniupnpd, so no router that maps ports (Debian: apt-get install miniupnpd-nftables)"
        mine = [item for item in mine if "mapping_daemon" in getattr(item, "fixturenames", ())]
    if reason is None:
        return
    config.stash[WHY_NOT] = reason
    config.hook.pytest_deselected(items=mine)
    items[:] = [item for item in items if item not in mine]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if reason := config.stash.get(WHY_NOT, ""):
        terminalreporter.write_line(f"REAL NATS NOT TESTED: {reason}", red=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[NatLab]:
    made = NatLab(f"sl{os.getpid() % 100_000}")
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture(scope="session")
def stage(lab: NatLab) -> Stage:
    return Stage(lab)


@pytest.fixture
def mapping_daemon(tmp_path: Path) -> Path:
    """A folder for miniupnpd's files; a test that asks for it needs the daemon."""
    return tmp_path
