"""`dualstore monitor`: watches the fleet, tells people, and rolls back where that has to be."""

import json
import signal
import threading
from pathlib import Path

import click

from dualstore.cli.plan import somebody
from dualstore.cli.running import command, config_option, find_models
from dualstore.rollout.monitor import Seen
from dualstore.rollout.watching import watching


@click.command()
@click.option("--once", is_flag=True, help="Look once; end with 1 where anything is an alarm.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for each look, for programs.")
@click.option("--as", "who", help="In whose name it rolls back; else monitor, and the machine at hand.")
@config_option
@command
def monitor(*, config: Path, once: bool, as_json: bool, who: str | None) -> bool:
    """Judge what all processes report, tell what is wrong, and take traffic off PostgreSQL, until SIGTERM.

    Any number may run; one of them leads, and another takes over where it ends.
    """
    find_models()
    with watching(config, who=who or f"monitor {somebody()}") as watched:
        if once:
            looked = watched.look()
            for each in looked:
                _print(each, as_json=as_json)
            return not any(each.alarms or each.problem for each in looked)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        watched.run(stop, seen=_Printing(as_json=as_json))
    return True


class _Printing:
    """Prints looks: each as a document, or in words where something has changed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: dict[str, object] = {}

    def __call__(self, seen: Seen) -> None:
        state = (seen.alarms, seen.problem)
        if self._as_json or seen.reaction is not None or self._last.get(seen.table) != state:
            _print(seen, as_json=self._as_json)
        self._last[seen.table] = state


def _print(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(seen.to_json()))
        return
    where = f"stage {seen.position['stage']}" if seen.position else "not served"
    said = f"alarms: {', '.join(sorted(seen.alarms))}" if seen.alarms else "no alarm"
    click.echo(f"{seen.table}: {where}, {seen.problem or said}")
    if seen.reaction is not None:
        click.echo(f"{seen.table}: {seen.reaction.outcome} ({seen.reaction.seconds:.1f} s)")
