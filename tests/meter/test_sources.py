"""Counters as the kernel shows them, and the model where it shows none."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.meter.battery import battery_watts
from shoal.meter.nvml import open_nvml
from shoal.meter.source import CORE_WATTS, CORE_WATTS_ERROR, STATED_ERROR, Watts, modelled, open_source


def battery(root: Path, name: str, **files: str) -> None:
    (root / name).mkdir(parents=True)
    for key, text in files.items():
        (root / name / key).write_text(text + "\n")


def rapl(root: Path, energy: int) -> None:
    zone = root / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(str(energy))
    (zone / "max_energy_range_uj").write_text("1000000")


def test_a_discharging_battery_is_read_in_both_of_the_kernels_spellings(tmp_path: Path) -> None:
    battery(tmp_path, "BAT0", status="Discharging", power_now="12500000")
    battery(tmp_path, "BAT1", status="Discharging", current_now="-1000000", voltage_now="10000000")
    assert battery_watts(tmp_path) == 22.5


@pytest.mark.parametrize("status", ["Charging", "Full", "Unknown"])
def test_a_battery_that_is_not_discharging_says_nothing(tmp_path: Path, status: str) -> None:
    battery(tmp_path, "BAT0", status=status, power_now="12500000")
    assert battery_watts(tmp_path) is None


def test_one_unreadable_battery_makes_the_sum_unknown(tmp_path: Path) -> None:
    battery(tmp_path, "BAT0", status="Discharging", power_now="12500000")
    battery(tmp_path, "BAT1", status="Discharging", power_now="lots")
    assert battery_watts(tmp_path) is None


def test_rapl_goes_on_after_its_counter_starts_again(tmp_path: Path) -> None:
    rapl(tmp_path / "cap", 900_000)
    source = open_source(Watts(), tmp_path / "cap", tmp_path / "none")
    assert source.name.startswith("rapl")
    assert source.error is None
    first = source.joules()
    rapl(tmp_path / "cap", 100_000)
    assert source.joules() - first == pytest.approx(0.2)


def test_a_battery_is_preferred_for_it_sees_the_whole_machine(tmp_path: Path) -> None:
    rapl(tmp_path / "cap", 1)
    battery(tmp_path / "power", "BAT0", status="Discharging", power_now="1000000")
    assert open_source(Watts(), tmp_path / "cap", tmp_path / "power").name == "battery"


def test_without_counters_the_model_says_that_it_is_one(tmp_path: Path) -> None:
    source = open_source(Watts(), tmp_path / "none", tmp_path / "none")
    assert source.name.startswith("modelled: CPU-seconds * 7 W")
    assert source.error == CORE_WATTS_ERROR


def test_the_model_is_what_it_says() -> None:
    assert modelled(Watts(), cpu=lambda: 3.0, wall=lambda: 10.0).joules() == 3.0 * CORE_WATTS
    stated = modelled(Watts(core=4.0, idle=20.0), cpu=lambda: 3.0, wall=lambda: 10.0)
    assert stated.joules() == 3.0 * 4.0 + 10.0 * 20.0
    assert stated.error == STATED_ERROR
    assert stated.name == "modelled: CPU-seconds * 4 W + 20 W idle"


def test_a_machine_without_the_drivers_library_has_no_gpus() -> None:
    assert open_nvml("libthere-is-no-such-library.so") is None
