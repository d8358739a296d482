"""The physical limit: psql streams of prepared text, with the same merge."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from bulk.table import MAPPING, TABLE
from dualstore.stores.postgres_staging import MIRROR, LoadStatements

EPOCH = 1
_STATEMENTS = LoadStatements(MAPPING, MIRROR)


def staged_script(pieces: Sequence[Path]) -> str:
    """COPY each piece into a staging table and merge it, a transaction each."""
    insert = _rendered(_STATEMENTS.insert)
    copy = _rendered(_STATEMENTS.staged.text)
    steps = [
        f"BEGIN;\n{_rendered(_STATEMENTS.begin)};\n\\{_from(copy, piece)}\n{insert};\nCOMMIT;"
        for piece in pieces
    ]
    return "\n".join(steps)


def straight_script(pieces: Sequence[Path]) -> str:
    """COPY each piece into the table itself."""
    copy = _rendered(_STATEMENTS.straight.text)
    return "\n".join(f"\\{_from(copy, piece)}" for piece in pieces)


def run_streams(psql: str, dsn: str, scripts: Sequence[str]) -> None:
    """Run the scripts, each by a psql of its own, at the same time."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{number}.sql" for number in range(len(scripts))]
        for path, script in zip(paths, scripts, strict=True):
            path.write_text(script)
        running = [
            subprocess.Popen(
                [psql, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-f", str(path), dsn],
                stdout=subprocess.DEVNULL,
            )
            for path in paths
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise SystemExit("psql failed")


def _from(copy: str, piece: Path) -> str:
    return copy.replace("FROM STDIN", f"FROM '{piece}'")


def _rendered(statement: sql.Composable) -> str:
    text = statement.as_string(None)
    for name, value in {"table": TABLE, "epoch": EPOCH}.items():
        text = text.replace(f"%({name})s", psycopg.sql.Literal(value).as_string(None))
    return text
