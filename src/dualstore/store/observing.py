"""What looks on while operations are carried out: the recorder of load profiles, the guard of reads."""

from collections.abc import Mapping
from datetime import timedelta

from dualstore.control import ControlRecord
from dualstore.recording import Recorder
from dualstore.router import Router
from dualstore.routing.guard import Guard
from dualstore.store.places import places_of
from dualstore.store.replicating import Replication


def recorder_of(replication: Replication) -> Recorder | None:
    """What records operations, where that is configured of any table."""
    settings, percents = replication.options.recording, replication.options.recorded_percents
    if settings.directory is None or not any(percents.values()):
        return None
    return Recorder(
        settings.directory,
        percents,
        replication.catalog.served,
        telemetry=replication.telemetry,
        places=lambda physical: places_of(replication.engine, replication.clients.reads, physical).known,
        secret=None if settings.secret is None else settings.secret.get_secret_value(),
        queue_keys=settings.queue_keys,
        rotate_bytes=settings.rotate_bytes,
        limit_bytes=settings.limit_bytes,
        flush=timedelta(seconds=settings.flush_seconds),
    )


def read_guard_of(replication: Replication, router: Router) -> Guard | None:
    """What takes reads off the mirror by this process's own figures, unless that is switched off."""
    limits = replication.options.guard
    if limits is None:
        return None

    def records() -> Mapping[str, ControlRecord]:
        return {
            table.served.logical: table.view.record for table in list(replication.catalog.tables.values())
        }

    return Guard(replication.telemetry, router.mirror_breakers, records, limits=limits)
