"""The words and numbers of `shoal water`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from shoal.meter.impact import JOULES_PER_KWH, Site, litres_per_kwh
from shoal.meter.journal import SAVE_EVERY_S, Journal
from shoal.meter.places import Band, Place
from shoal.node.metering import journal_path

_LATE = f"a running node writes its answers down within {SAVE_EVERY_S:.0f} s"


def country_lines(place: Place, stated: Site, kwh: float) -> list[str]:
    """What `kwh` of computing cost in `place`, part by part."""
    here = replace(stated, place=place)
    carbon = None if place.carbon is None else place.carbon.times(here.pue)
    year = f", generation of {place.year}" if place.year else ""
    mix = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(place.mix.items(), key=lambda i: -i[1]) if share >= 0.005
    )
    weather = "unknown" if place.wet_bulb_c is None else f"{place.wet_bulb_c:.1f} C wet-bulb, yearly mean"
    return [
        f"{place.name} ({place.code}){year}: {mix or 'no data on its electricity'}",
        f"weather          {weather}",
        f"on site          {_band(place.on_site, kwh, 'L')} where a cooling tower stands (--cooling tower)",
        f"off site         {_band(place.off_site, kwh * here.pue, 'L')} evaporated to generate it, PUE {here.pue:g}",
        f"together         {_band(litres_per_kwh(here), kwh, 'L')} for {kwh:g} kWh, cooling: {here.cooling}",
        f"carbon           {_band(carbon, kwh, 'g')} CO2 equivalent",
        "Bands are what the sources leave open, not chances. Sources: shoal/meter/data.",
    ]


def table_lines(places: Sequence[Place], stated: Site, kwh: float) -> list[str]:
    """One line for each place: litres on site by a tower, off site, grams."""
    rows = [f"{'':4}{'on site L':>10}{'off site L':>12}{'CO2 g':>10}  country"]
    for place in places:
        off = None if place.off_site is None else place.off_site.times(stated.pue)
        carbon = None if place.carbon is None else place.carbon.times(stated.pue)
        cells = (_cell(place.on_site, kwh, 10, 3), _cell(off, kwh, 12, 3), _cell(carbon, kwh, 10, 0))
        rows.append(f"{place.code:4}{''.join(cells)}  {place.name}")
    return rows


def report_lines(home: Path, first: str, last: str, stated: Site) -> list[str]:
    """What this node's answers cost between two days, as it wrote it down."""
    journal = Journal.read(journal_path(home))
    total = journal.between(first, last)
    days = [day for day in journal.days if first <= day <= last]
    if not days:
        return [f"no answers written down from {first} to {last} in {journal.path}; {_LATE}"]
    kwh = total.energy_j / JOULES_PER_KWH
    lines = [
        f"{days[0]} to {days[-1]}: {total.requests:,} answers, {total.tokens:,} tokens",
        f"energy           {total.energy_j:,.0f} J ({kwh:.4g} kWh), and {total.idle_j:,.0f} J while idle",
        f"source           {'; '.join(total.sources) or 'none'}",
        f"as of            {_saved(journal.path)}; {_LATE}",
    ]
    if total.water_l or total.carbon_g:
        lines += [
            f"water            {total.water_l * 1000:,.1f} mL",
            f"carbon           {total.carbon_g:,.3f} g CO2 equivalent",
        ]
    elif stated.place is None:
        lines.append("water, carbon    unknown: state where this machine is with --location, such as NG")
    return lines + ([f"power            {total.cost_usd:,.6f} US dollars"] if total.cost_usd else [])


def _saved(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _band(band: Band | None, factor: float, unit: str) -> str:
    if band is None:
        return f"unknown {unit}"
    return f"{band.value * factor:.4g} {unit} ({band.low * factor:.3g} to {band.high * factor:.3g})"


def _cell(band: Band | None, factor: float, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if band is None else f"{band.value * factor:>{width}.{digits}f}"
