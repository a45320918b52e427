"""Weather, water and carbon against published vectors and a second implementation."""

from __future__ import annotations

import json
from importlib.resources import files

import psychrolib
import pytest

from shoal.core.errors import InvalidRequest
from shoal.core.usage import Measured
from shoal.meter.impact import Site, impact, litres_per_kwh
from shoal.meter.places import codes, place
from shoal.meter.wetbulb import tower_litres_per_kwh, wet_bulb

AFRICAN_DATASET = [
    "DZ",
    "BJ",
    "BW",
    "BF",
    "BI",
    "CV",
    "CM",
    "CF",
    "TD",
    "CG",
    "EG",
    "GQ",
    "ER",
    "ET",
    "GA",
    "GH",
    "GN",
    "KE",
    "LS",
    "LR",
    "LY",
    "MG",
    "MW",
    "ML",
    "MR",
    "MA",
    "MZ",
    "NA",
    "NE",
    "NG",
    "RW",
    "SN",
    "SC",
    "SL",
    "SO",
    "ZA",
    "SS",
    "SD",
    "TZ",
    "TG",
    "TN",
    "UG",
    "ZM",
    "ZW",
]
"""Countries of arXiv 2412.03716's table (41 in its first version, 44 rows in the file)."""


@pytest.mark.parametrize(
    ("fahrenheit", "litres"), [(69.100873, 1.385339), (72.07, 1.451786), (55.46, 1.196372), (56.79, 1.206376)]
)
def test_the_towers_water_is_the_datasets(fahrenheit: float, litres: float) -> None:
    assert tower_litres_per_kwh((fahrenheit - 32) * 5 / 9) == pytest.approx(litres, abs=1.1e-4)


def test_nigeria_to_six_digits() -> None:
    assert round(tower_litres_per_kwh((69.100873 - 32) * 5 / 9), 6) == 1.385339


def test_the_fit_has_its_least_at_nine_degrees_and_ends_at_45_fahrenheit() -> None:
    assert tower_litres_per_kwh(9.3) == pytest.approx(1.1732, abs=1e-4)
    assert tower_litres_per_kwh(-30.0) == tower_litres_per_kwh(0.0) == pytest.approx(1.1803, abs=1e-4)


@pytest.mark.parametrize("humidity", [20, 40, 60, 80, 95])
@pytest.mark.parametrize("temperature", [0, 10, 20, 30, 40])
def test_stull_agrees_with_psychrolib_within_a_degree(temperature: int, humidity: int) -> None:
    psychrolib.SetUnitSystem(psychrolib.SI)
    exact = psychrolib.GetTWetBulbFromRelHum(temperature, humidity / 100, 101325)
    assert wet_bulb(temperature, humidity) == pytest.approx(exact, abs=1.05)


@pytest.mark.parametrize(("temperature", "humidity"), [(20, 4), (20, 100), (51, 50), (-21, 50), (20, float("nan"))])
def test_weather_outside_the_fit_is_refused(temperature: float, humidity: float) -> None:
    with pytest.raises(ValueError, match="expected a"):
        wet_bulb(temperature, humidity)


def test_every_country_of_the_african_dataset_has_everything() -> None:
    for code in AFRICAN_DATASET:
        found = place(code)
        assert found.wet_bulb_c is not None
        assert found.on_site is not None
        assert found.off_site is not None
        assert found.carbon is not None


def test_every_place_is_sound() -> None:
    assert len(codes()) > 200
    for code in codes():
        found = place(code)
        assert found.mix == {} or sum(found.mix.values()) == pytest.approx(1.0)
        for band in (found.on_site, found.off_site, found.carbon):
            assert band is None or 0 <= band.low <= band.value <= band.high


def test_every_number_has_a_source() -> None:
    factors = json.loads(files("shoal.meter").joinpath("data", "factors.json").read_text())
    for kind in factors.values():
        assert all(len(entry["source"]) > 20 for entry in kind.values())
    places = json.loads(files("shoal.meter").joinpath("data", "places.json").read_text())
    assert {f"wet_bulb_c {row['weather']}" for row in places["places"].values() if "weather" in row} <= set(
        places["sources"]
    )


@pytest.mark.parametrize("name", ["NG", "nga", "Nigeria", " ng "])
def test_places_are_found_by_code_and_name(name: str) -> None:
    assert place(name).code == "NG"


def test_an_unknown_place_is_refused_with_a_near_one() -> None:
    with pytest.raises(InvalidRequest, match=r"found 'Nigerien'; did you mean .*NG"):
        place("Nigerien")


def test_impact_follows_the_site() -> None:
    energy = Measured(3.6e6, "rapl", 0.36e6)
    nowhere = impact(energy, Site())
    assert (nowhere.water_l, nowhere.carbon_g, nowhere.cost_usd) == (None, None, None)
    home = Site(place("CF"), pue=1.0, usd_per_kwh=0.3)
    dry = impact(energy, home)
    assert dry.water_l is not None
    assert dry.water_l.value == pytest.approx(5.3374)
    assert dry.carbon_g is not None
    assert dry.carbon_g.value == pytest.approx(24.0)
    assert dry.cost_usd is not None
    assert dry.cost_usd.value == pytest.approx(0.3)
    assert dry.cost_usd.uncertainty == pytest.approx(0.03)
    tower = litres_per_kwh(Site(place("CF"), pue=1.5, cooling="tower"))
    assert tower is not None
    assert tower.value == pytest.approx(1.5 * 5.3374 + 1.3932, abs=1e-3)
