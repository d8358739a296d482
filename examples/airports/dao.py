"""The service's data access, between its handlers and PynamoDB. It does not know dualstore."""

from collections.abc import Iterable

from pynamodb.exceptions import DeleteError, DoesNotExist, PutError, UpdateError

from airports.models import Airport

_REFUSED = "ConditionalCheckFailedException"


class AirportError(Exception):
    """What the service's handlers turn into an answer."""


class AirportNotFoundError(AirportError):
    """There is no such airport."""


class AirportConflictError(AirportError):
    """The airport is not, or no longer, what the caller took it for."""


class AirportDao:
    """Reads and writes airports.

    Every method raises PynamoDB's exceptions when DynamoDB itself fails.
    """

    def get(self, icao: str, *, consistent: bool = False) -> Airport:
        """The airport with this ICAO code, or `AirportNotFoundError`."""
        try:
            return Airport.get(icao, consistent_read=consistent)
        except DoesNotExist:
            raise AirportNotFoundError(icao) from None

    def find_by_iata(self, iata: str) -> Airport | None:
        """The airport with this IATA code, if any."""
        return next(Airport.by_iata.query(iata, limit=1), None)

    def list_country(self, country: str, *, city_prefix: str = "", limit: int = 25) -> list[Airport]:
        """The first airports of a country, by city."""
        in_city = Airport.city.startswith(city_prefix) if city_prefix else None
        return list(Airport.by_country.query(country, in_city, limit=limit))

    def save(self, airport: Airport) -> None:
        """Writes the whole airport, whatever was there."""
        airport.save()

    def save_many(self, airports: Iterable[Airport]) -> None:
        """Writes many airports in batches, whatever was there."""
        with Airport.batch_write() as batch:
            for airport in airports:
                batch.save(airport)

    def rename(self, icao: str, *, old: str, new: str) -> None:
        """Gives an airport a new name, or raises `AirportConflictError` if it does not have the old one."""
        try:
            Airport(icao).update(actions=[Airport.name.set(new)], condition=Airport.name == old)
        except UpdateError as error:
            raise _conflict_or(error, icao) from error

    def count_visit(self, icao: str, *, visitor: str) -> None:
        """Counts a visit and remembers the visitor, or raises `AirportConflictError` if none is there."""
        try:
            Airport(icao).update(
                actions=[Airport.visits.add(1), Airport.visitors.add({visitor})],
                condition=Airport.icao.exists(),
            )
        except UpdateError as error:
            raise _conflict_or(error, icao) from error

    def close(self, icao: str) -> None:
        """Deletes an airport; one that is not there is closed already."""
        Airport(icao).delete()

    def reopen(self, airport: Airport) -> None:
        """Creates an airport, or raises `AirportConflictError` if it is open."""
        try:
            airport.save(condition=Airport.icao.does_not_exist())
        except PutError as error:
            raise _conflict_or(error, airport.icao) from error


def _conflict_or(error: PutError | UpdateError | DeleteError, icao: str) -> Exception:
    return AirportConflictError(icao) if error.cause_response_code == _REFUSED else error
