"""Finds and imports the example service, `examples/airports`, which knows nothing of dualstore."""

import importlib
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualstore.cli.demo.ledger import source_records
from dualstore.cli.demo.writes import Record
from dualstore.errors import ConfigurationError

TABLE = "airports"
MODEL = "airports.models:Airport"
ROW = "airports.rows:AirportRow"

HUBS = ("KATL", "OMDB", "EGLL", "RJTT", "LFPG", "EDDF", "WSSS", "SBGR", "YSSY", "FAOR", "BIKF", "LSZH")
"""Airports that everybody visits; some of their names and cities are not ASCII."""
COUNTRIES = ("IS", "NO", "FI", "CH", "PT", "JP", "NZ", "KE", "TR", "AT")
"""Countries with a few hundred airports at most: ministack reads a whole index partition for one page."""


def example_folder() -> Path:
    """The folder that holds the package `airports`: of the checkout, or shipped with the wheel.

    Raises:
        ConfigurationError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "airports" / "models.py").exists():
            return folder
    raise ConfigurationError("the example service is not there: run the demo from a clone of the repository")


@dataclass(frozen=True, slots=True)
class Example:
    """The example's modules, imported.

    Attributes:
        models: with the PynamoDB model `Airport`.
        dao: with `AirportDao` and its exceptions.
        rows: with the SQLAlchemy row `AirportRow`.
        source: with `records` and `airports`.
    """

    models: Any
    dao: Any
    rows: Any
    source: Any


def import_example() -> Example:
    """Imports the example; its settings come from the environment (`AIRPORTS_DYNAMODB_URL`).

    Raises:
        ConfigurationError: it is missing, or one of its packages is.
    """
    folder = str(example_folder())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    names = ("models", "dao", "rows", "source")
    try:
        return Example(*(importlib.import_module(f"airports.{name}") for name in names))
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"the demo needs the package {missing.name}: pip install 'dualstore[demo]'"
        ) from missing


def chosen_records(example: Example, *, count: int | None, seed: int) -> list[dict[str, Any]]:
    """The records to work with: all, or a sample that has every hub.

    Args:
        example: the example.
        count: how many; None takes all.
        seed: of the sample.
    """
    records = list(example.source.records())
    if count is None or count >= len(records):
        return records
    hubs = [record for record in records if record["icao"] in HUBS]
    others = [record for record in records if record["icao"] not in HUBS]
    sample = random.Random(seed).sample(others, count - len(hubs))  # noqa: S311 - a reproducible sample
    return sorted(hubs + sample, key=lambda record: str(record["icao"]))


def source_of(records: list[dict[str, Any]]) -> dict[str, Record]:
    """The records as the proof sees them, by ICAO code."""
    return source_records(records)
