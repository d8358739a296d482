"""`dualstore failover`: PostgreSQL, the authority, is gone: DynamoDB takes over; reconciled later."""

import getpass
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

import click
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.cli.running import command, config_option, opened
from dualstore.config import load
from dualstore.control import ControlRecord, moment
from dualstore.errors import ConfigurationError, DualStoreError, IllegalTransition, Unavailable
from dualstore.flags import setter_of
from dualstore.items import TableShape, key_hash
from dualstore.mapping import typed_json
from dualstore.replication.failover import Foreseen, SignsOfLife
from dualstore.replication.failover_notes import Witness
from dualstore.stages import Side, Stage
from dualstore.store import DualStore, MigratedTable
from dualstore.store.reconciling import epoch_before_failover
from dualstore.stores.postgres_lost_writes import Loss, LostWrite
from dualstore.stores.quarantine import Form

_LOOK_SECONDS = 0.1
_REASON_CHARACTERS = 200
_SHOWN = 20

_SAID: Mapping[Loss, str] = {
    Loss.WRITTEN: "lost: the item was written so",
    Loss.DELETED: "lost: the item was deleted",
    Loss.WRITTEN_OVER: "lost, and written over by a later change that is lost too",
    Loss.ARRIVED: "not lost: it had reached DynamoDB",
}


@click.command()
@click.argument("table")
@click.option("--to", type=click.Choice([Side.DYNAMODB.value]), help="The database that takes over.")
@click.option("--accept-loss", is_flag=True, help="Do it, though what is named may be lost.")
@click.option(
    "--although-postgresql-answers",
    "although",
    is_flag=True,
    help="Do it though PostgreSQL is not gone for everybody; what it takes from now on is lost.",
)
@click.option(
    "--reconcile", is_flag=True, help="PostgreSQL is back: list what was lost, and mirror to it again."
)
@click.option(
    "--export", type=click.Path(dir_okay=False, path_type=Path), help="Where lost writes are written."
)
@click.option("--plain-keys", is_flag=True, help="Print the keys of lost writes, not their hashes.")
@click.option("--reason", default="", help="Why, in a few words, for those who find it so.")
@click.option("--by", help="Who decides it; else the user and machine at hand.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait",
    type=float,
    default=15.0,
    show_default=True,
    help="Seconds to wait for all processes to confirm.",
)
@config_option
@command
def failover(table: str, *, config: Path, **options: Any) -> bool:
    """Have DynamoDB take over TABLE from PostgreSQL, which is gone, and reconcile the two when it is back.

    For `live` and `rampdown`. Needs DynamoDB alone. The way back while PostgreSQL answers is `dualstore
    dial`: that loses nothing.
    """
    if options["reconcile"] == (options["to"] is not None):
        raise ConfigurationError(
            "say which: --to dynamodb where PostgreSQL is gone, or --reconcile once it is back"
        )
    with opened(config) as store:
        if options["reconcile"]:
            return _reconcile(store, table, options)
        return _fail_over(store, table, config, options)


# -- away from PostgreSQL -------------------------------------------------------------------------


def _fail_over(store: DualStore, table: str, config: Path, options: Mapping[str, Any]) -> bool:
    foreseen = store.foresee_failover(table)
    if foreseen.done:
        click.echo(f"{table}: it was {foreseen.record.failed_over} already")
    else:
        _say_what_may_be_lost(table, foreseen)
        if not options["accept_loss"]:
            raise IllegalTransition(f"nothing was done to {table}: give --accept-loss to have it so")
        # One that was announced goes on: writes pause until it is done.
        if not foreseen.record.decides:
            _require_lost(table, store.signs_of_life(table), although=options["although"])
            _ask(table, yes=options["yes"])
        grant = store.options.grants.write.total_seconds()
        click.echo(
            f"  announced; DynamoDB takes writes in {grant + 1:g} s, when every earlier grant has ended"
        )
    record = store.fail_over(
        foreseen, by=options["by"] or _somebody(), reason=options["reason"][:_REASON_CHARACTERS]
    )
    click.echo(f"{table}: DynamoDB is the authority, at stage {record.stage}; no read goes to PostgreSQL")
    _print_confirmations(store, record, options["wait"])
    if not foreseen.done:
        _set_flags(table, config)
    click.echo(
        f"  when PostgreSQL is back: `dualstore failover {table} --reconcile`. Until then let nothing else "
        "use it, SQL of your own neither: what it takes is lost"
    )
    return True


def _say_what_may_be_lost(table: str, foreseen: Foreseen) -> None:
    depth, record = foreseen.depth, foreseen.record
    if record.decides and record.failed_over is not None:
        click.echo(f"{table}: it was {record.failed_over}, but that has not come to its end")
        return
    if depth is None:
        click.echo(
            f"{table}: writes may be missing on DynamoDB, and since when is unknown: nobody has noted how "
            "far it was behind"
        )
    else:
        click.echo(
            f"{table}: writes acknowledged after {moment(depth.recovery_point)} may be missing on DynamoDB; "
            f"{depth.rows:,} change(s) were known to wait for it at {moment(depth.at)}"
        )
    if record.suspects:
        click.echo("  more may be: DynamoDB was suspect, and no verification has cleared that")


def _require_lost(table: str, signs: SignsOfLife, *, although: bool) -> None:
    """See that PostgreSQL is gone, as far as can be told."""
    for word in signs.cut_off:
        click.echo(f"  {_named(word)}: lives, and does not reach PostgreSQL")
    for word in signs.silent:
        click.echo(
            f"  {_named(word)}: silent since {moment(word.at)}: it has ended, or cannot reach DynamoDB. If "
            "it still reaches PostgreSQL, what it writes there is lost: see that it has ended"
        )
    if not signs.postgres_lives or although:
        return
    who = ["this machine"] if signs.postgres_answers else []
    who += [_named(word) for word in signs.reaching]
    raise IllegalTransition(
        f"PostgreSQL is not gone: it answers {', '.join(who)}. Nothing was done. `dualstore dial {table} "
        f"--stage {Stage.SHADOW}` goes back to DynamoDB and loses nothing. Where that cannot be had: "
        "--although-postgresql-answers"
    )


def _ask(table: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "there is no terminal to ask at; give --yes to fail over without being asked"
        )
    click.confirm(f"Fail {table} over to DynamoDB, and lose that?", abort=True)


def _print_confirmations(store: DualStore, record: ControlRecord, wait: float) -> None:
    """What each process has confirmed, after waiting a little for all of them."""
    deadline = time.monotonic() + wait
    processes: Mapping[str, bool] = {}
    with suppress(ClientError, BotoCoreError, Unavailable):
        while not all((processes := store.confirmed(record)).values()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    for label, confirmed in sorted(processes.items()):
        click.echo(
            f"  {label}: {'confirmed' if confirmed else 'not confirmed yet; it writes nothing before'}"
        )
    if not processes:
        click.echo("  no process has registered with DynamoDB yet")


def _set_flags(table: str, config: Path) -> None:
    """Have the flags ask for what is: they would ask for `live` again once all is reconciled."""
    try:
        setter_of(load(config)).set(table, stage=Stage.SHADOW.value, postgres_read_percent=0.0)
    except (DualStoreError, OSError) as error:
        click.echo(f"  the flags could not be set ({error}); have them ask for stage shadow, read-percent 0")
    else:
        click.echo("  the flags ask for stage shadow, read-percent 0 now")


def _named(word: Witness) -> str:
    return f"{word.label}:{word.id[:8]}"


# -- PostgreSQL is back -----------------------------------------------------------------------------


def _reconcile(store: DualStore, table: str, options: Mapping[str, Any]) -> bool:
    migrated = store.table(table)
    done = migrated.reconcile()
    if done.before:
        click.echo(f"{table}: it was reconciled before; what was lost then:")
    else:
        click.echo(f"{table}: PostgreSQL takes no write under its former role, and follows DynamoDB again")
    click.echo(f"  {done.lost:,} change(s) lost")
    for kind, count in sorted(done.changes.items()):
        click.echo(f"    {count:,} {_SAID[kind]}")
    shown = _shown(migrated, done.record, options)
    if done.lost > shown:
        click.echo(f"    and {done.lost - shown:,} more; --export writes all to a file")
    if not done.before:
        click.echo("  their keys are settled from DynamoDB, which decides")
    if done.record.suspects:
        click.echo(f"  next: `dualstore verify {table} --repair`; no read goes to PostgreSQL before that")
    return True


def _secret(path: str, flags: int) -> int:
    """Opens a file for this user alone: what it takes is as secret as the table."""
    return os.open(path, flags, 0o600)


def _shown(migrated: MigratedTable, record: ControlRecord, options: Mapping[str, Any]) -> int:
    """Print some of the lost writes, and export all where that is asked for; how many were printed."""
    export: Path | None = options["export"]
    shown = 0
    with nullcontext() if export is None else open(export, "w", encoding="utf-8", opener=_secret) as file:
        for page in migrated.lost_writes.entries(after_epoch=epoch_before_failover(record)):
            for each in page:
                if each.kind is Loss.ARRIVED:
                    continue
                if shown < _SHOWN:
                    click.echo(f"    {_line(each, migrated.served.shape, plain=options['plain_keys'])}")
                    shown += 1
                if file is not None:
                    _write(file, each)
    if export is not None:
        click.echo(
            f"  written to {export}, with the items where they were kept: it is as secret as the table"
        )
    return shown


def _line(lost: LostWrite, shape: TableShape, *, plain: bool) -> str:
    key = typed_json(lost.key) if plain else f"key {key_hash(shape.keys, lost.key)}"
    return f"{moment(lost.written_at)}, {key}: {lost.kind}"


def _write(file: TextIO, lost: LostWrite) -> None:
    """One line of the export: the key, what became of the change, and the item as it was kept."""
    line: dict[str, Any] = {
        "key": json.loads(typed_json(lost.key)),
        "kind": lost.kind.value,
        "written_at": moment(lost.written_at),
    }
    if lost.item is not None and lost.form is Form.PLAIN:
        line["item"] = json.loads(lost.item)
    elif lost.item is not None:
        line[lost.form.value] = lost.item.decode()
    file.write(json.dumps(line) + "\n")


def _somebody() -> str:
    """The user and machine at hand; containers may know neither."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # the last two until Python 3.13
        user = "somebody"
    return f"{user}@{platform.node() or 'unknown'}"
