"""A look before a backfill: what would not fit, how large it gets, how long it takes, what it costs.

Reads only. A sample, or all of the source, is transcoded and loaded into temporary tables with the rules of
the real ones, and taken back.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dualstore.backfill.sources import Description, Source
from dualstore.errors import ConfigurationError
from dualstore.mapping.transcoding import Transcoded
from dualstore.stores.batch_limits import Limits
from dualstore.stores.places import is_s3
from dualstore.stores.postgres_trial import TrialLoad

_MOST_PIECES = 64
"""So many pieces of a source are looked into, spread evenly: an export of 10 TB has ten thousand files."""
_LEAST_BATCH_BYTES = 64 * 1024
_FEWEST_PAGE_ITEMS = 100
_LIST_PAGE = 1000
_WHOLE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Unit prices in US dollars; the defaults are those of us-east-1, standard class, in November 2024.

    Attributes:
        million_read_units: of on-demand capacity. A read unit reads 4 KB consistently, 8 KB otherwise.
        thousand_s3_requests: GET and HEAD; a LIST costs more, and there are few.
    """

    million_read_units: float = 0.125
    thousand_s3_requests: float = 0.0004


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What a look found.

    Attributes:
        share: of the source that was to be looked at, at least.
        items: looked at.
        fitting: of these, how many fit.
        problems: how many items do not, by the reason.
        not_tried: rules of the SQL tables that were left out, such as foreign keys.
        json_bytes: the size of the items as JSON.
        table_bytes: what their rows take on PostgreSQL.
        index_bytes: what their indexes take.
        seconds: how long reading and loading took, by one worker, into temporary tables (which write no WAL).
        read_units: consumed by the look.
        expected_items: how many items the source has; None where nobody knows.
        keys_to_settle: records of incremental exports.
        s3_requests: what reading the source takes.
        workers: how many are meant to copy.
        read_units_per_second: the most they may consume; None: no limit.
        prices: of what is read.
    """

    share: float
    items: int
    fitting: int
    problems: Mapping[str, int]
    not_tried: Sequence[str]
    json_bytes: int
    table_bytes: int
    index_bytes: int
    seconds: float
    read_units: float
    expected_items: int | None
    keys_to_settle: int
    s3_requests: int
    workers: int = 1
    read_units_per_second: float | None = None
    prices: Prices = field(default_factory=Prices)

    @property
    def fits(self) -> bool:
        """Whether everything that was looked at fits."""
        return not self.problems

    @property
    def items_per_second(self) -> float:
        """Of one worker."""
        return self.items / self.seconds if self.seconds else 0.0

    @property
    def postgres_bytes(self) -> int | None:
        """What rows and indexes will take; None where nobody knows how many there are."""
        return self._of_all(self.table_bytes + self.index_bytes)

    @property
    def index_share(self) -> float:
        """The share of the indexes in what is on PostgreSQL."""
        return self.index_bytes / max(1, self.table_bytes + self.index_bytes)

    @property
    def source_bytes(self) -> int | None:
        """The size of all items as JSON."""
        return self._of_all(self.json_bytes)

    @property
    def all_read_units(self) -> int | None:
        """What a Scan of all will consume."""
        return self._of_all(self.read_units)

    @property
    def expected_time(self) -> timedelta | None:
        """How long a copy takes at least: at this rate, by workers that PostgreSQL keeps up with."""
        if self.expected_items is None or not self.items_per_second:
            return None
        seconds = self.expected_items / (self.items_per_second * self.workers)
        if self.read_units_per_second is not None:
            seconds = max(seconds, (self.all_read_units or 0) / self.read_units_per_second)
        return timedelta(seconds=seconds)

    @property
    def dollars(self) -> float | None:
        """What reading costs; None where nobody knows how much there is."""
        units = self.all_read_units
        if units is None:
            return None
        requests = self.s3_requests * self.prices.thousand_s3_requests / 1e3
        return units * self.prices.million_read_units / 1e6 + requests

    def _of_all(self, of_sample: float) -> int | None:
        if self.expected_items is None or not self.items:
            return None if self.expected_items is None or self.expected_items else 0
        return math.ceil(of_sample * self.expected_items / self.items)


def share_of(text: str) -> float:
    """A share that a person has written as `1%`.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not text.endswith("%") or not 0 < percent <= 100:  # noqa: PLR2004 - per cent
        raise ConfigurationError(f"a sample is a share of more than 0 % as 1%, or 0.1%; {text} is none")
    return percent / 100


def look(
    source: Source,
    trial: TrialLoad,
    *,
    share: float = _WHOLE,
    workers: int = 1,
    read_units_per_second: float | None = None,
    prices: Prices | None = None,
    seen: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Preflight:
    """Look at a sample, or all, of what a backfill would copy.

    Of each piece the beginning is read. It is as good a sample as any: DynamoDB stores items by the hash of
    their key, and Scans and exports read them in that order.

    Args:
        source: what would be copied.
        trial: where rows are tried.
        share: of the items to be looked at, at least; 1 is all of them.
        workers: how many would copy.
        read_units_per_second: the most they might consume.
        prices: of what is read.
        seen: called now and then with the number of items looked at.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: the source can be read only once.
        UnusableSource: there is something wrong with it.
        Unavailable: a database, or S3, could not be reached.
    """
    if source.kind == "stdin":
        raise ConfigurationError("standard input can be read only once: give a file to look at it first")
    trial.check()
    pieces = source.pieces()
    items = [piece for piece in pieces if not piece.get("catch_up")]
    sums, problems = Counter[str](), Counter[str]()
    began = clock()
    chosen = items if share >= _WHOLE else _spread(items, _MOST_PIECES)
    # Fewer pieces are read, so more of each.
    of_piece = min(_WHOLE, share * len(items) / max(1, len(chosen)))
    for piece in chosen:
        for tried, read_units in _tried(source, trial, piece, of_piece):
            sums.update(
                items=tried.items,
                fitting=tried.fitting,
                json_bytes=tried.json_bytes,
                table_bytes=tried.table_bytes,
                index_bytes=tried.index_bytes,
            )
            sums["milli_units"] += round(read_units * 1000)
            problems.update(f"{each.reason}: {each.detail}" for each in tried.rejected)
            seen(sums["items"])
    settled = sum(piece.get("items") or 0 for piece in pieces if piece.get("catch_up"))
    return Preflight(
        share=share,
        items=sums["items"],
        fitting=sums["fitting"],
        problems=dict(problems.most_common()),
        not_tried=trial.left_out(),
        json_bytes=sums["json_bytes"],
        table_bytes=sums["table_bytes"],
        index_bytes=sums["index_bytes"],
        seconds=clock() - began,
        read_units=sums["milli_units"] / 1000,
        expected_items=_expected(source, items, sums, whole=share >= _WHOLE, settled=settled),
        keys_to_settle=settled,
        s3_requests=_s3_requests(pieces),
        workers=workers,
        read_units_per_second=read_units_per_second,
        prices=prices or Prices(),
    )


def first_blocks(source: Source, trial: TrialLoad) -> Sequence[Transcoded]:
    """The items of the first batch of a source that has some, transcoded.

    Args:
        source: what would be copied.
        trial: whose transcoder is taken.
    """
    for piece in source.pieces():
        for batch in source.read(piece, None, trial.transcoder, Limits()):
            blocks = list(batch.blocks)
            if any(block.rows for block in blocks):
                return blocks
    return ()


def _spread(pieces: Sequence[Description], most: int) -> Sequence[Description]:
    """At most so many pieces, evenly spread."""
    step = max(1, math.ceil(len(pieces) / most))
    return pieces[::step]


def _tried(source: Source, trial: TrialLoad, piece: Description, share: float) -> Any:
    """What became of the beginning of a piece, batch by batch, and what reading it consumed."""
    wanted = _Wanted.of(piece, share)
    with closing(source.read(piece, None, trial.transcoder, wanted.limits)) as batches:  # type: ignore[type-var]
        for batch in batches:
            tried = trial.try_blocks(batch.blocks, rejected=batch.rejected)
            yield tried, batch.read_units
            wanted.taken(tried.items, tried.json_bytes)
            if wanted.enough:
                return


@dataclass
class _Wanted:
    """How much of a piece is still to be read; at least one batch with an item."""

    items: float | None
    size_bytes: float | None
    limits: Limits
    _any: bool = False

    @classmethod
    def of(cls, piece: Description, share: float) -> "_Wanted":
        if share >= _WHOLE:
            return cls(None, None, Limits())
        items, size = piece.get("items"), piece.get("bytes")
        wanted = None if items is None else items * share
        limits = Limits(
            batch_bytes=min(Limits().batch_bytes, max(_LEAST_BATCH_BYTES, math.ceil((size or 0) * share))),
            page_items=max(_FEWEST_PAGE_ITEMS, math.ceil(wanted or 0)),
        )
        return cls(wanted, None if wanted is not None else (size or 0) * share, limits)

    def taken(self, items: int, size_bytes: int) -> None:
        self._any |= items > 0
        if self.items is not None:
            self.items -= items
        elif self.size_bytes is not None:
            self.size_bytes -= size_bytes

    @property
    def enough(self) -> bool:
        left = self.items if self.items is not None else self.size_bytes
        return self._any and left is not None and left <= 0


def _expected(
    source: Source, pieces: Sequence[Description], sums: Mapping[str, int], *, whole: bool, settled: int
) -> int | None:
    """How many items there are: counted, told, or by the size of files."""
    if whole:
        return sums["items"]
    if source.expected_items:  # DynamoDB says 0 of a table that was filled in the last six hours
        return max(source.expected_items - settled, sums["items"])
    plain = not any(str(piece.get("file", ".gz")).endswith(".gz") for piece in pieces)
    size: int = sum(piece.get("bytes") or 0 for piece in pieces)
    if not plain or not size or not sums["json_bytes"]:
        return None
    return max(sums["items"], round(size * sums["items"] / sums["json_bytes"]))


def _s3_requests(pieces: Sequence[Description]) -> int:
    """GETs of files and manifests, and the listings by which their sizes are known."""
    exports = {piece["export"] for piece in pieces if is_s3(str(piece.get("export", "")))}
    files = sum(is_s3(str(piece.get("export", piece.get("file", "")))) for piece in pieces)
    return files + math.ceil(files / _LIST_PAGE) + 2 * len(exports)
