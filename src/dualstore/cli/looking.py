"""What `dualstore backfill` says before it copies: what would not fit, sizes, time, cost, and indexes."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dualstore.backfill.preflight import Preflight, Prices, first_blocks, look, share_of
from dualstore.backfill.refusals import gigabytes
from dualstore.backfill.sources import Source
from dualstore.cli.running import console
from dualstore.store import MigratedTable
from dualstore.stores.postgres_trial import IndexCosts, TrialLoad

_SHOWN_PROBLEMS = 20


def look_first(migrated: MigratedTable, source: Source, options: dict[str, Any], *, as_json: bool) -> bool:
    """Carry out `--dry-run` and `--sample`; whether a backfill may start, and everything fits.

    Args:
        migrated: the table.
        source: what would be copied.
        options: of the command.
        as_json: whether a machine reads what is said.
    """
    table = migrated.served.logical
    obstacles = migrated.backfill_obstacles(source, workers=options["workers"])
    found = look(
        source,
        TrialLoad(migrated.copying.engine, migrated.mapping),
        share=1.0 if options["sample"] is None else share_of(options["sample"]),
        workers=options["workers"],
        read_units_per_second=options["read_units_per_second"],
        prices=Prices(
            million_read_units=options["price_read_units"],
            thousand_s3_requests=options["price_s3_requests"],
        ),
    )
    if as_json:
        click.echo(json.dumps(_json(table, found, obstacles)))
    else:
        for line in _lines(table, found, obstacles):
            click.echo(line)
    return found.fits and not obstacles


def report_indexes(migrated: MigratedTable, source: Source) -> None:
    """Carry out `--report-indexes`: what setting indexes and foreign keys aside would save."""
    table = migrated.served.logical
    there = migrated.indexes_aside.removable()
    if not there:
        click.echo(f"{table}: there is no index or foreign key that a copy could do without")
        return
    shown = Table(box=SIMPLE_HEAD)
    for heading in ("name", "size now", "definition"):
        shown.add_column(heading)
    for each in there:
        shown.add_row(each.name, "" if each.is_key else gigabytes(each.size_bytes), each.definition)
    console().print(shown)
    trial = TrialLoad(migrated.copying.engine, migrated.mapping)
    costs = trial.index_costs(first_blocks(source, trial))
    for line in _told(table, costs, source.expected_items):
        click.echo(line)


def _told(table: str, costs: IndexCosts, expected_items: int | None) -> Iterator[str]:
    yield (
        f"{table}: of {costs.items:,} items tried, each took {costs.kept_us:.1f} µs to insert with these "
        f"indexes, {costs.dropped_us:.1f} µs without, and {costs.rebuilt_us:.1f} µs to build them afterwards"
    )
    if expected_items is not None:
        saved = (costs.kept_us - costs.dropped_us - costs.rebuilt_us) * expected_items / 1e6
        yield (
            f"{table}: for about {expected_items:,} items, dropping and rebuilding "
            f"{'saves' if saved > 0 else 'costs'} {_short(abs(saved))} of one worker's time; more is saved "
            "where the indexes outgrow memory, and foreign keys are not counted"
        )


def _lines(table: str, found: Preflight, obstacles: Sequence[str]) -> Iterator[str]:
    """A look in plain text."""
    share = "all" if found.share >= 1 else f"a sample of {found.share:.3%} or more"
    of_how_many = "" if found.expected_items is None else f" of about {found.expected_items:,}"
    yield f"{table}: {found.items:,} items read ({share}{of_how_many}), {found.fitting:,} fit; none written"
    problems = list(found.problems.items())
    yield from (f"  {count:,} do not: {problem}" for problem, count in problems[:_SHOWN_PROBLEMS])
    if len(problems) > _SHOWN_PROBLEMS:
        yield f"  and {len(problems) - _SHOWN_PROBLEMS:,} other reasons"
    if found.not_tried:
        yield f"  not tried: {', '.join(found.not_tried)}"
    if found.keys_to_settle:
        yield f"  {found.keys_to_settle:,} records of incremental exports, whose keys are settled"
    if found.postgres_bytes is not None and found.source_bytes is not None:
        yield (
            f"  size: {gigabytes(found.source_bytes)} as JSON, {gigabytes(found.postgres_bytes)} on "
            f"PostgreSQL, {found.index_share:.0%} of it indexes; WAL comes on top"
        )
    yield f"  time: {_time(found)}"
    if found.dollars is not None:
        yield (
            f"  reading: {found.all_read_units or 0:,} read units, {found.s3_requests:,} S3 requests, "
            f"{found.dollars:,.2f} USD ({found.prices.million_read_units:g} a million units, "
            f"{found.prices.thousand_s3_requests:g} a thousand requests)"
        )
    yield from (f"  would be refused: {each}" for each in obstacles)


def _time(found: Preflight) -> str:
    rate = f"one worker did {found.items_per_second:,.0f} items a second here, without WAL"
    if found.expected_time is None:
        return rate
    least = _short(found.expected_time.total_seconds())
    return f"at least {least} with {found.workers} worker(s); {rate}"


def _json(table: str, found: Preflight, obstacles: Sequence[str]) -> dict[str, Any]:
    expected = found.expected_time
    return {
        "table": table,
        "share": found.share,
        "items": found.items,
        "fitting": found.fitting,
        "problems": dict(found.problems),
        "not_tried": list(found.not_tried),
        "obstacles": list(obstacles),
        "expected_items": found.expected_items,
        "keys_to_settle": found.keys_to_settle,
        "json_bytes": found.source_bytes,
        "postgres_bytes": found.postgres_bytes,
        "index_share": found.index_share,
        "items_per_second": found.items_per_second,
        "expected_seconds": None if expected is None else expected.total_seconds(),
        "read_units": found.all_read_units,
        "s3_requests": found.s3_requests,
        "dollars": found.dollars,
    }


def _short(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
