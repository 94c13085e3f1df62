"""Four small real series, shipped with the package: no download, a load takes milliseconds.

Each is stored as small integers (tenths, hundredths) in one compressed ``.npz`` beside this file; the float32 values
returned are those nearest to the decimal numbers of the source.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = [
    "BikeDemand",
    "Series",
    "load_air_passengers",
    "load_bike_demand",
    "load_co2",
    "load_sunspots",
]

_WEATHER = ("clear", "mist", "rain")


class Series(NamedTuple):
    """One series at regular times.

    Attributes
    ----------
    time : ndarray of datetime64, shape (n,)
        Start of each period; the unit is that of the series (year, month or day).
    values : ndarray of float32, shape (n,)
        NaN where the source has no value.

    Examples
    --------
    >>> time, values = load_sunspots()
    >>> time.shape == values.shape
    True
    """

    time: np.ndarray
    values: np.ndarray


class BikeDemand(NamedTuple):
    """Hourly demand with what is known about each hour.

    Attributes
    ----------
    time : ndarray of datetime64[h], shape (n,)
        Start of each hour, local time.
    users : ndarray of float32, shape (n,)
        Bikes hired in that hour.
    features : ndarray of float32, shape (n, f)
        Raw, not scaled; see `load_bike_demand` for the columns.
    feature_names : tuple of str, length f
        Names of the columns of `features`.

    Examples
    --------
    >>> data = load_bike_demand()
    >>> data.features.shape == (len(data.time), len(data.feature_names))
    True
    """

    time: np.ndarray
    users: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]


def _stored(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as archive:
        return dict(archive)


def _scaled(codes: np.ndarray, steps: int) -> np.ndarray:
    """``codes / steps`` rounded once to float64, as parsing the decimals would give, then to float32."""
    return (codes / np.float64(steps)).astype(np.float32)


def load_air_passengers() -> Series:
    """Monthly passengers of international airlines, January 1949 to December 1960.

    Returns
    -------
    Series
        144 months; values in thousands of passengers, 104 to 622.

    Notes
    -----
    Source: Box & Jenkins (1976), "Time Series Analysis: Forecasting and Control", series G; from a copy that a package
    under BSD-3 distributes. Licence: BSD-3.

    Examples
    --------
    >>> time, passengers = load_air_passengers()
    >>> print(time[0], passengers[0], time[-1], passengers[-1])
    1949-01 112.0 1960-12 432.0
    """
    values = _stored("air_passengers")["passengers"]
    return Series(np.datetime64("1949-01", "M") + np.arange(len(values)), values.astype(np.float32))


def load_co2() -> Series:
    """Weekly carbon dioxide in the air of Mauna Loa, Hawaii, 29 March 1958 to 29 December 2001.

    Returns
    -------
    Series
        2284 weeks, each dated by its Saturday; values in parts per million by volume, 313.0 to 373.9. 59 weeks have
        no value and are NaN: a net trained on the raw series refuses it, so fill or mask them first.

    Notes
    -----
    Source: Keeling & Whorf (2004), "Atmospheric CO2 concentrations derived from flask air samples at sites in the SIO
    network", Carbon Dioxide Information Analysis Center, Oak Ridge. Licence: public domain.

    Examples
    --------
    >>> time, ppm = load_co2()
    >>> print(time[0], ppm[0], int(np.isnan(ppm).sum()))
    1958-03-29 316.1 59
    """
    tenths = _stored("co2")["tenths"]
    values = _scaled(tenths, 10)
    values[tenths == 0] = np.nan
    return Series(np.datetime64("1958-03-29", "D") + 7 * np.arange(len(values)), values)


def load_sunspots() -> Series:
    """Yearly mean sunspot numbers, 1700 to 2008.

    Returns
    -------
    Series
        309 years; values 0.0 to 190.2, in the counting scale used before the revision of 2015.

    Notes
    -----
    Source: U.S. National Geophysical Data Center. Licence: public domain. Papers commonly train on 1700-1920 and test
    on 1921-1955 and 1956-1979.

    Examples
    --------
    >>> time, numbers = load_sunspots()
    >>> print(time[0], numbers[0], time[-1], numbers[-1])
    1700 5.0 2008 2.9
    """
    values = _scaled(_stored("sunspots")["tenths"], 10)
    return Series(np.datetime64("1700", "Y") + np.arange(len(values)), values)


def load_bike_demand() -> BikeDemand:
    """Hourly bike hire in Washington, D.C., with weather and calendar, 2011 and 2012.

    Returns
    -------
    BikeDemand
        17,544 hours without a gap; users 1 to 977. Columns of `features`:

        ==================================  =====================================================================
        ``holiday``, ``workingday``         0 or 1; a working day is neither weekend nor holiday
        ``clear``, ``mist``, ``rain``       0 or 1, exactly one of them 1; ``rain`` includes snow and thunderstorm
        ``temperature``                     degrees Celsius, 0.82 to 41
        ``humidity``                        relative humidity in percent, 0 to 100
        ``wind_speed``                      0 to 57; the source names no unit, the steps are whole knots in km/h
        ``month``, ``weekday``, ``hour``    1 to 12, 0 (Monday) to 6, 0 to 23: integers, from `time`
        ==================================  =====================================================================

    Notes
    -----
    Source: Fanaee-T & Gama (2013), "Event labeling combining ensemble detectors and background knowledge", Progress
    in Artificial Intelligence 2; UCI Machine Learning Repository 275 (doi 10.24432/C5W894), CC BY 4.0; from the
    cleaned copy ``bike_sharing_dataset_clean`` of skforecast-datasets, BSD-3, which fills the hours missing in the
    original and merges the weather into three kinds. Changed here: the "feels like" temperature is left out, the
    weather is one-hot, numbers are rounded to float32.

    Examples
    --------
    >>> data = load_bike_demand()
    >>> print(data.time[0], data.users[0], data.features.shape)
    2011-01-01T00 16.0 (17544, 11)
    """
    stored = _stored("bike_demand")
    users = stored["users"].astype(np.float32)
    time = np.datetime64("2011-01-01T00", "h") + np.arange(len(users))
    days = time.astype("datetime64[D]")
    columns = {
        "holiday": stored["holiday"],
        "workingday": stored["workingday"],
        **{kind: stored["weather"] == code for code, kind in enumerate(_WEATHER)},
        "temperature": _scaled(stored["temperature"], 100),
        "humidity": stored["humidity"],
        "wind_speed": _scaled(stored["wind_speed"], 10_000),
        "month": time.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        # 1970-01-01 was a Thursday.
        "weekday": (days.astype(np.int64) + 3) % 7,
        "hour": (time - days).astype(np.int64),
    }
    features = np.empty((len(users), len(columns)), np.float32)
    for j, column in enumerate(columns.values()):
        features[:, j] = column
    return BikeDemand(time, users, features, tuple(columns))
