"""What a plan's commands run: the team's own migrations, and the restore of its backup. Starts in a moment.

Run as `restoring.py create URL STATEMENT`, or `restoring.py restore TABLE URL SCRATCH`.
"""

import sys

import psycopg
from psycopg import sql


def create(url: str, statement: str) -> None:
    """Create the SQL table, if it is not there."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def restore(table: str, url: str, scratch: str) -> None:
    """Copy the table as it is now into a database of its own."""
    name = sql.Identifier(table)
    copy = [sql.SQL(text).format(name) for text in ("COPY {} TO STDOUT", "COPY {} FROM STDIN")]
    with psycopg.connect(url) as here, psycopg.connect(scratch) as there:
        there.execute(sql.SQL("TRUNCATE {}").format(name))
        with here.cursor().copy(copy[0]) as read, there.cursor().copy(copy[1]) as written:
            for part in read:
                written.write(part)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"create": create, "restore": restore}[command](*arguments)
