"""`dualstore load …`: recordings condensed to a profile, and a profile replayed in staging."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from dualstore.cli.running import command, config_option, console, opened
from dualstore.config import load as load_configuration
from dualstore.errors import ConfigurationError
from dualstore.recording import is_recording, read_lines
from dualstore.rollout.durations import duration_of, said
from dualstore.rollout.load import (
    LoadProfile,
    Outcome,
    Replay,
    Row,
    TableLoad,
    Tally,
    Thresholds,
    cleaned,
    condense,
    load_profile,
    outcome,
    profile_text,
    replay,
    replay_in_processes,
    require_another_place,
    require_staging,
    schema_of_profiles,
    seeded,
)
from dualstore.rollout.load.keys import PREFIX
from dualstore.store import DualStore
from dualstore.store.places import Places


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, timedelta):
            return value
        try:
            return duration_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_file = click.Path(exists=True, path_type=Path)
_load_argument = click.argument("load_file", metavar="PROFILE|RECORDING", type=_file)
_table_option = click.option("--table", required=True, help="The table to put the load on.")
_from_option = click.option(
    "--from", "recorded_table", help="The table in PROFILE, where it has another name there."
)
_prefix_option = click.option(
    "--prefix", default=PREFIX, show_default=True, help="What all keys of the load begin with."
)
_confirm_option = click.option(
    "--confirm", metavar="HOST", help="PostgreSQL's host, in place of being asked for it."
)
_force_option = click.option("--force", "words", help="The words that a refusal asks for.")


@click.group("load")
def load() -> None:
    """Replay recorded access patterns, operations and skew of keys without a value, against staging."""


@load.command("profile")
@click.argument("recordings", nargs=-1, required=True, metavar="RECORDING...", type=_file)
@click.option("--name", default="recorded", show_default=True, help="Of the profile, for people.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write; else it is printed.")
@command
def profile_command(recordings: tuple[Path, ...], *, name: str, out: Path | None) -> None:
    """Condense recordings, files or directories of them, to one small profile."""
    found = _condensed(recordings, name)
    for note in _notes(found):
        click.echo(note, err=True)
    if out is None:
        click.echo(profile_text(found), nl=False)
        return
    out.write_text(profile_text(found), encoding="utf-8")
    for table, each in found.tables.items():
        click.echo(f"{out}: {table}, {each.per_second:.1f} operations a second")


@load.command()
@click.argument("profile", type=_file)
@click.option("--schema", "prints_schema", is_flag=True, help="Print the JSON schema of profiles.")
@command
def validate(profile: Path, *, prints_schema: bool) -> None:
    """See that PROFILE is one; every mistake is told with its line."""
    if prints_schema:
        click.echo(json.dumps(schema_of_profiles(), indent=2))
        return
    for table, each in load_profile(profile).tables.items():
        rates = ", ".join(f"{rate.label} {rate.per_second:g}" for rate in each.operations)
        click.echo(f"{profile}: {table}, {each.per_second:g} operations a second: {rates}")


@load.command()
@_load_argument
@_table_option
@_from_option
@click.option(
    "--multiple",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times as many operations as were recorded.",
)
@click.option(
    "--duration", type=_Duration(), default="10m", show_default=True, help="For how long at the full rate."
)
@click.option(
    "--ramp",
    type=_Duration(),
    default="30s",
    show_default=True,
    help="How long the rate grows until then; not measured.",
)
@click.option(
    "--writers",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many operations of a process may be under way at a time.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes send them; each has a core at the most.",
)
@click.option("--even", is_flag=True, help="Operations at equal distances, not as independent callers come.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of everything that is drawn.")
@click.option(
    "--seed-items",
    type=click.IntRange(min=0),
    default=20_000,
    show_default=True,
    help="The most items that are written before it begins.",
)
@click.option("--p99-under", type=_Duration(), help="End with 1 where the p99 of any operation is not.")
@click.option("--errors-under", type=float, metavar="PERCENT", help="End with 1 where more of them fail.")
@_prefix_option
@click.option("--clean", "cleans", is_flag=True, help="Delete at the end what was written.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for programs.")
@_confirm_option
@_force_option
@config_option
@command
def run(
    load_file: Path,
    *,
    table: str,
    recorded_table: str | None,
    multiple: float,
    duration: timedelta,
    ramp: timedelta,
    writers: int,
    processes: int,
    even: bool,
    seed: int,
    seed_items: int,
    p99_under: timedelta | None,
    errors_under: float | None,
    prefix: str,
    cleans: bool,
    as_json: bool,
    confirm: str | None,
    words: str | None,
    config: Path,
) -> bool:
    """Put the load of PROFILE, or of a RECORDING, on a table of staging, through the router.

    Ends with 1 where a threshold does not hold, or where the load that was asked for was not there.
    """
    profile = _profile(load_file)
    planned = Replay(
        load=_table_load(profile, recorded_table or table),
        multiple=multiple,
        duration=duration,
        ramp=ramp,
        writers=writers,
        arrivals="even" if even else "poisson",
        seed=seed,
        prefix=prefix,
        seed_items=seed_items,
    )
    _note_connections(config, writers)
    with _allowed(config, table, profile, planned, confirm=confirm, words=words) as store:
        written, wanted = seeded(store, table, planned)
        click.echo(f"{written} of {wanted} items are there; the load begins", err=True)
        deleted = None
        try:
            tally = _replayed(store, config, table, planned, processes)
        finally:
            if cleans:
                deleted = cleaned(store, table, planned)
        result = outcome(planned, tally, Thresholds(p99_under, errors_under))
    if as_json:
        numbers = {"seeded": written, "wanted": wanted, "deleted": deleted, "seconds": tally.seconds}
        click.echo(json.dumps({"table": table, "multiple": multiple, **numbers, **result.to_json()}))
    else:
        _print(result)
        if deleted is not None:
            click.echo(f"{deleted} items of the load were deleted")
    return not result.failures


@load.command()
@_load_argument
@_table_option
@_from_option
@_prefix_option
@_confirm_option
@_force_option
@config_option
@command
def clean(
    load_file: Path,
    *,
    table: str,
    recorded_table: str | None,
    prefix: str,
    confirm: str | None,
    words: str | None,
    config: Path,
) -> None:
    """Delete what a load without `--clean`, or one that was killed, has left."""
    profile = _profile(load_file)
    planned = Replay(
        load=_table_load(profile, recorded_table or table),
        multiple=1,
        duration=timedelta(seconds=1),
        prefix=prefix,
    )
    with _allowed(config, table, profile, None, confirm=confirm, words=words) as store:
        click.echo(f"{cleaned(store, table, planned)} items of the load were deleted")


def _notes(profile: LoadProfile) -> Iterator[str]:
    """What whoever reads the profile should know."""
    recorded = profile.recorded
    if recorded is not None and recorded.lost:
        yield (
            f"{recorded.lost} operations were dropped beside {recorded.operations} that were noted; the "
            "rates make up for them. Record a smaller share, or give recording.queue_keys more room"
        )
    if recorded is not None and recorded.salts > 1:
        yield (
            f"{recorded.salts} groups of processes know the same keys by different hashes: the hottest of "
            "each are added up, so the skew is a little stronger than it was. Give all one recording.secret"
        )


def _condensed(recordings: tuple[Path, ...], name: str) -> LoadProfile:
    return condense(chain.from_iterable(map(read_lines, recordings)), name=name)


def _profile(path: Path) -> LoadProfile:
    return _condensed((path,), path.name) if is_recording(path) else load_profile(path)


def _table_load(profile: LoadProfile, name: str) -> TableLoad:
    try:
        return profile.tables[name]
    except KeyError:
        raise ConfigurationError(
            f"the profile says nothing of a table {name}; it has {', '.join(profile.tables)}: name one with "
            "--from"
        ) from None


@contextmanager
def _allowed(
    config: Path,
    table: str,
    profile: LoadProfile,
    planned: Replay | None,
    *,
    confirm: str | None,
    words: str | None,
) -> Iterator[DualStore]:
    """The store of a deployment that load may be put on, once somebody has said so."""
    require_staging(load_configuration(config))
    with opened(config) as store:
        places = store.places(table)
        recorded_at = set(chain.from_iterable(profile.recorded_at.values()))
        require_another_place(table, places, recorded_at, words=words)
        _confirmed(table, places, planned, confirm)
        yield store


def _note_connections(config: Path, writers: int) -> None:
    """Say where writers would wait for each other, not for PostgreSQL."""
    settings = load_configuration(config).postgres
    connections = settings.pool_size + settings.max_overflow
    if writers > connections:
        click.echo(
            f"{writers} writers share {connections} connections to PostgreSQL (postgres.pool_size and "
            "max_overflow) in a process, as callers of the application would: some wait for others",
            err=True,
        )


def _confirmed(table: str, places: Places, planned: Replay | None, confirm: str | None) -> None:
    """Have somebody name the host that is about to bear the load."""
    click.echo(f"table {table} of staging: {places.dynamodb or 'in an account that is not told'}", err=True)
    click.echo(f"  and {places.postgres}", err=True)
    if planned is not None:
        click.echo(
            f"  {planned.per_second:.1f} operations a second for {said(planned.duration)}, "
            f"{planned.multiple:g} times what was recorded",
            err=True,
        )
    if confirm is None:
        confirm = click.prompt("PostgreSQL's host, to go on", err=True)
    if confirm != places.host:
        raise ConfigurationError(
            f"PostgreSQL's host here is {places.host}, not {confirm}: nothing was done; where it is the one "
            "you mean, give it with --confirm"
        )


def _replayed(store: DualStore, config: Path, table: str, planned: Replay, processes: int) -> Tally:
    if processes > 1:
        return replay_in_processes(config, table, planned, processes)
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        return replay(store, table, planned, stop=stop)
    finally:
        signal.signal(signal.SIGINT, before)


def _print(result: Outcome) -> None:
    table = Table("operation", "planned/s", "made/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors")
    for row in (*result.rows, result.total):
        table.add_row(*_cells(row))
    console().print(table)
    click.echo("latencies are from when an operation was due, not from when it was sent")
    if result.held_up is not None:
        click.echo(result.held_up)
    for failure in result.failures:
        click.echo(f"NO: {failure}")


def _failures(row: Row) -> dict[str, int]:
    return row.errors | ({"not begun": row.unbegun} if row.unbegun else {})


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.planned_per_second:.1f}",
        f"{row.achieved_per_second:.1f}",
        *("-" if each is None else f"{each:.1f}" for each in (row.p50_ms, row.p95_ms, row.p99_ms)),
        f"{row.longest_ms:.1f}",
        ", ".join(f"{code} {count}" for code, count in _failures(row).items()) or "none",
    )
