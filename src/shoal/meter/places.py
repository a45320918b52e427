"""What a kilowatt-hour costs in water and carbon, by country. Every number's source is in the data files beside this.

data/places.json   generation mix and its year, grams of CO2 equivalent per kWh, annual mean wet-bulb temperature
data/factors.json  litres and grams per kWh of each way to generate electricity, each with a low and a high value
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from shoal.core.errors import InvalidRequest
from shoal.meter.wetbulb import tower_litres_per_kwh


@dataclass(frozen=True, slots=True)
class Band:
    """A value and the range its sources leave open."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Band:
        return Band(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, other: Band) -> Band:
        return Band(self.value + other.value, self.low + other.low, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Place:
    """One country. on_site: litres per kWh of computing by a cooling tower. off_site: litres per kWh of electricity.

    mix  share of each way to generate, summing to 1; year: of the mix. None where no source has a number.
    """

    code: str
    name: str
    year: int | None
    mix: Mapping[str, float]
    wet_bulb_c: float | None
    on_site: Band | None
    off_site: Band | None
    carbon: Band | None


def place(code: str) -> Place:
    """By ISO 3166 code of two or three letters, or English name, in any case. InvalidRequest naming near ones."""
    rows = _data("places.json")["places"]
    wanted = code.strip().casefold()
    for key, row in rows.items():
        if wanted in (key.casefold(), row["alpha3"].casefold(), row["name"].casefold()):
            return _place(key, row)
    near = [key for key, row in rows.items() if len(wanted) > 2 and wanted[:4] in row["name"].casefold()][:5]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise InvalidRequest(f"location: expected a country as ISO 3166 code such as NG or KEN, found {code!r}{hint}")


def codes() -> tuple[str, ...]:
    """Two-letter codes of every country with data."""
    return tuple(_data("places.json")["places"])


def _place(code: str, row: Mapping[str, Any]) -> Place:
    twh: dict[str, float] = row.get("generation_twh", {})
    total = sum(twh.values())
    mix = {source: value / total for source, value in twh.items()} if total > 0 else {}
    wet = row.get("wet_bulb_c")
    return Place(
        code=code,
        name=row["name"],
        year=row.get("year"),
        mix=mix,
        wet_bulb_c=wet,
        on_site=None if wet is None else _tower(wet),
        off_site=_mixed(mix, "litres_per_kwh"),
        carbon=_carbon(row, mix),
    )


def _tower(wet_bulb_c: float) -> Band:
    """The tower's value; low: cooled by air alone. High: a wet-bulb 2 K higher, the spread between the two weathers."""
    return Band(tower_litres_per_kwh(wet_bulb_c), 0.0, tower_litres_per_kwh(max(wet_bulb_c, 9.4) + 2.0))


def _mixed(mix: Mapping[str, float], kind: str) -> Band | None:
    if not mix:
        return None
    total = Band(0.0, 0.0, 0.0)
    for source, share in mix.items():
        total = total.plus(_factor(kind, source).times(share))
    return total


def _carbon(row: Mapping[str, Any], mix: Mapping[str, float]) -> Band | None:
    """The published intensity where there is one; the band is always the mix's."""
    mixed, published = _mixed(mix, "grams_per_kwh"), row.get("carbon_g_per_kwh")
    if mixed is None or published is None:
        return mixed
    return Band(published, min(mixed.low, published), max(mixed.high, published))


def _factor(kind: str, source: str) -> Band:
    entry = _data("factors.json")[kind][source]
    return Band(entry["value"], entry["low"], entry["high"])


@cache
def _data(name: str) -> Any:
    return json.loads(files("shoal.meter").joinpath("data", name).read_text())
