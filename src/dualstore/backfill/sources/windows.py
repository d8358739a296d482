"""Whether exports and dual writes together tell of every write: DESIGN, replication protocol, rule 4.

What is copied is the state at the time T of a full export. A write behind T reaches PostgreSQL because it is
mirrored, or because an incremental export names its key, which is then settled.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from dualstore.backfill.sources.manifests import Export, ExportType
from dualstore.errors import UnusableSource

MARGIN = timedelta(minutes=1)
"""How far the clocks of AWS and of those who write may be apart."""


def check_chain(exports: Sequence[Export]) -> tuple[Export | None, Sequence[Export]]:
    """See that exports are one full export and what follows it, or a catch-up alone, without a gap.

    The first increment has to begin at the very time of the full export. If it begins earlier, an item may
    have been there at that time, made within the window and deleted within it: then the full export has it,
    and the increment, which leaves out what it began and ended without, does not name it. It would come back.

    Args:
        exports: in any order.

    Returns:
        The full export, where there is one, and the others in order of time.

    Raises:
        UnusableSource: they are not; says which export is needed.
    """
    full = [each for each in exports if each.type is ExportType.FULL]
    if len(full) > 1:
        raise UnusableSource(f"{full[0].url} and {full[1].url} are both full exports: give one")
    increments = sorted((each for each in exports if each.type is ExportType.INCREMENTAL), key=_window)
    ends = full[0].time if full else None
    for number, each in enumerate(increments):
        begin, end = _window(each)
        if ends is not None and (begin > ends or (number == 0 and begin != ends)):
            what = "the full export is of" if number == 0 else "the export before it ends at"
            raise UnusableSource(
                f"{each.url} begins at {_text(begin)}, and {what} {_text(ends)}: take an incremental export "
                f"from {_text(ends)} on{_whole_second(ends) if number == 0 else ''}"
            )
        ends = end if ends is None or end > ends else ends
    return (full[0] if full else None), increments


def covered_until(full: Export | None, increments: Sequence[Export]) -> datetime:
    """Up to when every write is told of: exports as `check_chain` returns them."""
    times = [_window(each)[1] for each in increments]
    if full is not None and full.time is not None:
        times.append(full.time)
    return max(times)


def check_covers(
    exports: Sequence[Export], since: datetime, *, tombstones_since: datetime | None = None
) -> None:
    """See that no write falls between exports and dual writes; see `Source.covers`.

    A deletion that was mirrored is known by its tombstone. Where tombstones of deletions behind the exports
    have been removed already, copying would bring those items back.

    Args:
        exports: in any order.
        since: from then on every write is mirrored.
        tombstones_since: from then on every deletion has a tombstone that is still there.
    """
    full, increments = check_chain(exports)
    until = covered_until(full, increments)
    needed, why = since + MARGIN, f"every write is mirrored since {_text(since)} only"
    if tombstones_since is not None and tombstones_since + MARGIN > needed:
        needed = tombstones_since + MARGIN
        why = f"deletions are remembered since {_text(tombstones_since)} only"
    if until < needed:
        what = "export" if not increments else "last incremental export"
        raise UnusableSource(
            f"the {what} tells of writes up to {_text(until)}, and {why}: take an incremental export from "
            f"{_text(until)} to {_text(needed)} or later (`dualstore export --incremental`) and give it too, "
            "or take a new full export"
        )


def _window(export: Export) -> tuple[datetime, datetime]:
    if export.begin is None or export.end is None:  # `read_export` has seen to it
        raise UnusableSource(f"{export.url} is an incremental export without a beginning or an end")
    return export.begin, export.end


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole_second(moment: datetime) -> str:
    if not moment.microsecond:
        return ""
    return (
        "; since no incremental export can begin within a second, take the full one again at a whole second "
        "(`dualstore export --at latest`)"
    )
