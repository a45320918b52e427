"""`shoal water`: what a kilowatt-hour costs in water and carbon somewhere, and what this node's answers cost so far."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.core.errors import BadConfig, InvalidRequest
from shoal.node.config_sources import Loaded
from shoal.node.flags import configured

if TYPE_CHECKING:
    from shoal.meter.places import Place


@configured("location", "cooling", "pue")
def water(
    loaded: Loaded,
    country: Annotated[str | None, typer.Option(help="ISO 3166 code or English name, such as NG.")] = None,
    kwh: Annotated[float, typer.Option(help="Electricity used by the computers.", min=0.0, max=1e15)] = 1.0,
    since: Annotated[str | None, typer.Option(help="Report this node's answers from this day on, YYYY-MM-DD.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day of the report; today if not given.")] = None,
    all_countries: Annotated[bool, typer.Option("--all", help="A line for every country with data.")] = False,
) -> None:
    """Litres, grams of CO2 and dollars: of `--kwh` in a country, or of this node's answers since a day.

    --pue and --cooling tower say how the place is built; without a tower, no water evaporates on site.
    """
    from shoal.meter.places import codes
    from shoal.node.metering import site
    from shoal.node.water_text import country_lines, report_lines, table_lines

    stated, has_days = site(loaded.config), since is not None or until is not None
    if [all_countries, has_days, country is not None].count(True) > 1:
        raise BadConfig("water", "expected one of --country, --all, and --since with --until; found several")
    if all_countries:
        lines = table_lines([_place(code) for code in codes()], stated, kwh)
    elif has_days:
        first, last = _day("--since", since or "0001-01-01"), _day("--until", until)
        if until is not None and first > last:
            raise BadConfig("--since", f"expected a day up to --until {last}, found {first}")
        lines = report_lines(loaded.config.home, first, last, stated)
    elif country is not None or stated.place is not None:
        where = _place(country) if country is not None else stated.place
        assert where is not None
        lines = country_lines(where, stated, kwh)
    else:
        raise BadConfig("water", "expected --country NG, --all, or --since 2026-01-01; found none of them")
    typer.echo("\n".join(lines))


def _place(country: str) -> Place:
    from shoal.meter.places import place

    try:
        return place(country)
    except InvalidRequest as error:
        raise BadConfig("--country", str(error).removeprefix("location: ")) from None


def _day(flag: str, text: str | None) -> str:
    if text is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadConfig(flag, f"expected a day as YYYY-MM-DD, found {text!r}") from None
