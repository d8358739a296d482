"""The first control record of a table: made at stage `off`, unless PostgreSQL may be deciding already.

A record in DynamoDB is never deleted, only `moved`. So PostgreSQL decides for a table of which DynamoDB has
no record only where DynamoDB's bookkeeping table was made anew, or emptied, since. Not to know is not "no".
"""

from dataclasses import replace

from dualstore.control import Phase
from dualstore.errors import Unavailable
from dualstore.replication.search import Homes
from dualstore.stages import Side
from dualstore.stores.control_homes import KnowsPostgres, Prepared


def make_first_record(homes: Homes, table: str) -> bool:
    """Make the first record of a table, unless there is one in either database.

    Args:
        homes: both databases.
        table: the physical name.

    Returns:
        False where PostgreSQL, which may hold the record that decides, does not answer: nothing was made.

    Raises:
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does not
            answer, or lacks the bookkeeping table.
    """
    here = homes[Side.DYNAMODB]
    if table in here.read_all():
        return True
    if not _knows_every_decision(homes):
        return False
    here.create(table)  # harmless where a copy is there by now
    return True


def bring_decisions_over(homes: Homes) -> None:
    """Copy the records that decide in PostgreSQL into DynamoDB, where they say that they do not decide there.

    From then on the bookkeeping table has known of every decision, for as long as it stays what it is.

    Raises:
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: one of the two does
            not answer.
    """
    for record in homes[Side.POSTGRES].read_all().values():
        if record.decides:
            homes[Side.DYNAMODB].install(replace(record, phase=Phase.MOVED))
    _bookkeeping(homes).note_postgres_known()


def _knows_every_decision(homes: Homes) -> bool:
    """Whether a table without a record in DynamoDB has none that decides in PostgreSQL either."""
    postgres: Prepared = homes[Side.POSTGRES]  # type: ignore[assignment]
    try:
        if postgres.is_prepared():  # else it has never kept a record
            bring_decisions_over(homes)
    except Unavailable:
        return _bookkeeping(homes).postgres_is_known()
    return True


def _bookkeeping(homes: Homes) -> KnowsPostgres:
    dynamodb: KnowsPostgres = homes[Side.DYNAMODB]  # type: ignore[assignment]
    return dynamodb
