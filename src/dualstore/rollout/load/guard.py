"""Where load may be put: in staging, as its configuration says, and never where it was recorded."""

from collections.abc import Iterable

from dualstore.config import Configuration
from dualstore.errors import IllegalTransition
from dualstore.recording import place_hash
from dualstore.store.places import Places

CONFIRMATION = "load {table} where it was recorded"
"""The words that have a load test go on where its guard would refuse; the table's name is filled in."""


def require_staging(configuration: Configuration) -> None:
    """Refuse a deployment that does not say it is one of staging.

    Raises:
        IllegalTransition: it says `production`, or nothing; no words help against that.
    """
    if configuration.environment != "staging":
        said = configuration.environment or "nothing"
        raise IllegalTransition(
            f"`environment` in the configuration is {said}: load is put on staging alone. Where this "
            'deployment is one of staging, write `environment = "staging"` at the top of its dualstore.toml'
        )


def require_another_place(
    table: str, places: Places, recorded_at: Iterable[str], *, words: str | None = None
) -> None:
    """Refuse to put load where it was recorded, or where that cannot be told.

    Args:
        table: the table's logical name.
        places: where it is.
        recorded_at: hashes of where the load was recorded; none where it was written by hand.
        words: what was said to force it.

    Raises:
        IllegalTransition: with what to do.
    """
    recorded = frozenset(recorded_at)
    if not recorded or words == CONFIRMATION.format(table=table):
        return
    forced = f'To do it all the same, give --force "{CONFIRMATION.format(table=table)}"'
    same = [place for place in places.known if place_hash(place) in recorded]
    if same:
        raise IllegalTransition(
            f"the load was recorded at {' and '.join(same)}, which is where it would be put. Take the "
            f"configuration of staging. {forced}"
        )
    if places.dynamodb is None:
        raise IllegalTransition(
            f"whose table {table} is cannot be told, so not either that the load was recorded elsewhere: "
            f"allow dynamodb:DescribeTable. {forced}"
        )
