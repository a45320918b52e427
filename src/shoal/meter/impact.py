"""Joules -> litres, grams and dollars at a stated place. Nothing is stated, nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shoal.core.usage import Measured
from shoal.meter.places import Band, Place

JOULES_PER_KWH = 3.6e6
Cooling = Literal["none", "tower"]


@dataclass(frozen=True, slots=True)
class Site:
    """Where a machine stands. pue: power of the whole site over that of its computers, 1 for a machine at home.

    cooling  tower: water evaporates on site as the weather asks for. usd_per_kwh: what its owner pays.
    """

    place: Place | None = None
    pue: float = 1.0
    cooling: Cooling = "none"
    usd_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Impact:
    water_l: Measured | None
    carbon_g: Measured | None
    cost_usd: Measured | None


def impact(energy: Measured, site: Site) -> Impact:
    """What `energy` (joules of computing) cost there; the band joins that of the energy and that of the factors."""
    kwh = _band(energy).times(1 / JOULES_PER_KWH)
    place = site.place
    water = litres_per_kwh(site)
    carbon = place.carbon.times(site.pue) if place is not None and place.carbon is not None else None
    usd = None if site.usd_per_kwh is None else Band(site.usd_per_kwh, site.usd_per_kwh, site.usd_per_kwh)
    where = f"{place.name} {place.year or ''}".strip() if place is not None else ""
    return Impact(
        _measured(kwh, water, f"{where}, {energy.source}"),
        _measured(kwh, carbon, f"{where}, {energy.source}"),
        _measured(kwh, None if usd is None else usd.times(site.pue), f"power price, {energy.source}"),
    )


def litres_per_kwh(site: Site) -> Band | None:
    """For one kWh of computing: on site where a tower cools, and PUE times what generation took."""
    place = site.place
    if place is None or place.off_site is None:
        return None
    off = place.off_site.times(site.pue)
    return off.plus(place.on_site) if site.cooling == "tower" and place.on_site is not None else off


def _band(energy: Measured) -> Band:
    spread = energy.uncertainty or 0.0
    return Band(energy.value, max(0.0, energy.value - spread), energy.value + spread)


def _measured(kwh: Band, rate: Band | None, source: str) -> Measured | None:
    """Product of two bands; the uncertainty is the larger side, so that value ± uncertainty covers the band."""
    if rate is None:
        return None
    value = kwh.value * rate.value
    spread = max(value - kwh.low * rate.low, kwh.high * rate.high - value)
    return Measured(value, f"modelled: {source}", spread)
