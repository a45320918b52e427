"""Water a cooling tower evaporates for a kilowatt-hour of computing, from the weather outside.

Wet-bulb temperature: Stull 2011, J. Appl. Meteor. Climatol. 50:2267 (within 1 K for 5..99 %, -20..50 C, sea level).
Litres: the fit of arXiv 2405.17469 (eq. 3) used by arXiv 2412.03716: an SPX tower with cold water at 85 F.
"""

from __future__ import annotations

from math import atan, sqrt

LOWEST_F = 45.0
"""Below it the fit is not defined by its authors; colder places are given the value here."""


def wet_bulb(temperature_c: float, humidity: float) -> float:
    """Wet-bulb temperature, C, of air at `temperature_c` with relative humidity in percent, 5 to 99. ValueError."""
    if not 5.0 <= humidity <= 99.0:
        raise ValueError(f"expected a relative humidity of 5 to 99 percent, found {humidity:g}")
    if not -20.0 <= temperature_c <= 50.0:
        raise ValueError(f"expected a temperature of -20 to 50 C, found {temperature_c:g}")
    t, rh = temperature_c, humidity
    return (
        t * atan(0.151977 * sqrt(rh + 8.313659))
        + atan(t + rh)
        - atan(rh - 1.676331)
        + 0.00391838 * rh * sqrt(rh) * atan(0.023101 * rh)
        - 4.686035
    )


def tower_litres_per_kwh(wet_bulb_c: float) -> float:
    """Litres evaporated on site for one kWh of computing. Between 1.17 and 1.6: climate hardly separates places."""
    f = max(LOWEST_F, wet_bulb_c * 9 / 5 + 32)
    return max(0.0, 0.0005112 * f * f - 0.04982 * f + 2.387)
