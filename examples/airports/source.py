"""The world's airports, from the package `airportsdata` (28,000 records, MIT)."""

from collections.abc import Iterator
from typing import Any

import airportsdata

from airports.models import Airport


def records() -> Iterator[dict[str, Any]]:
    """Every airport as the attributes it has, by ICAO code; empty means it has none, and is left out."""
    by_icao = airportsdata.load("ICAO")
    for icao in sorted(by_icao):
        yield {name: value for name, value in by_icao[icao].items() if value != ""}


def airports() -> Iterator[Airport]:
    """Every airport, ready to be saved."""
    return (Airport(**record) for record in records())
