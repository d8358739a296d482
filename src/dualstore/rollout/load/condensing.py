"""Condenses recordings to a profile: identities become ranks, ranks become classes of equally hot keys."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil

from dualstore.errors import ConfigurationError
from dualstore.recording import Line, Lost, Note, Opened, TableNamed
from dualstore.rollout.load.profile import (
    LoadProfile,
    OperationRate,
    PartitionClass,
    Recorded,
    Shares,
    TableLoad,
)

_HOTTEST = 16
"""So many partitions are classes of their own."""
_GROWTH = 1.5
"""Every further class has so many times the partitions of the one before."""
_MOST_VALUES = 12
"""So many different values of a number are told apart."""
_WRITES_SIZED = frozenset({"PutItem", "UpdateItem", "BatchWriteItem", "TransactWriteItems"})


@dataclass(slots=True)
class _Partition:
    """What one partition was asked for.

    Attributes:
        by_operation: how many keys of which operation.
        items: how often which of its items was asked for.
    """

    by_operation: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)

    @property
    def keys(self) -> int:
        return self.by_operation.total()


@dataclass(slots=True)
class _Kind:
    """What was seen of the operations of one name on one index."""

    count: float = 0.0
    noted: int = 0
    consistent: int = 0
    conditional: int = 0
    ranged: int = 0
    answers: int = 0
    answered: int = 0
    keys: Counter[int] = field(default_factory=Counter)
    limits: Counter[int] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)


Space = dict[str, _Partition]


@dataclass(slots=True)
class _Table:
    """What was seen of one table: its kinds of operations, and its partitions by salt and index."""

    kinds: defaultdict[tuple[str, str], _Kind] = field(default_factory=lambda: defaultdict(_Kind))
    spaces: defaultdict[tuple[str, str], Space] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(_Partition))
    )
    read_sizes: Counter[int] = field(default_factory=Counter)
    places: set[str] = field(default_factory=set)
    noted: int = 0
    lost: int = 0


class _Condenser:
    """Takes lines in, and gives a profile of them all.

    Times are those of the wall clocks: rates are those of all processes together, over the time from the
    first operation of any to the last.
    """

    def __init__(self) -> None:
        self._tables: defaultdict[str, _Table] = defaultdict(_Table)
        self._opened: Opened | None = None
        self._percents: dict[str, float] = {}
        self._salts: set[str] = set()
        self._first = float("inf")
        self._last = float("-inf")

    def take(self, line: Line) -> None:
        """Count a line."""
        match line:
            case Opened():
                self._opened, self._percents = line, {}
                self._salts.add(line.salt)
            case TableNamed():
                self._percents[line.table] = line.percent
                self._tables[line.table].places.update(line.places)
            case Lost():
                self._tables[line.table].lost += line.operations
            case Note():
                self._take_note(line)

    def _take_note(self, note: Note) -> None:
        assert self._opened is not None  # noqa: S101 - every file begins with it
        at = self._opened.began + note.at
        self._first, self._last = min(self._first, at), max(self._last, at)
        table = self._tables[note.table]
        table.noted += 1
        kind = table.kinds[note.operation, note.index]
        kind.noted += 1
        kind.count += 100 / self._percents[note.table]
        kind.consistent += note.consistent
        kind.conditional += note.conditional
        kind.ranged += note.ranged
        kind.limits[note.limit] += 1
        if note.answered >= 0:
            kind.answers += 1
            kind.answered += note.answered
        if note.touched:
            kind.keys[len(note.touched)] += 1
        space = table.spaces[self._opened.salt, note.index]
        for touch in note.touched:
            partition = space[touch.partition]
            partition.by_operation[note.operation] += 1
            if touch.item:
                partition.items[touch.item] += 1
            if touch.act:
                kind.acts[touch.act] += 1
            if touch.size_bytes:
                sizes = kind.sizes if note.operation in _WRITES_SIZED else table.read_sizes
                sizes[touch.size_bytes] += 1

    def profile(self, name: str) -> LoadProfile:
        """What all lines say together.

        Raises:
            ConfigurationError: they say nothing, or were recorded in less than a second.
        """
        noted = sum(table.noted for table in self._tables.values())
        seconds = self._last - self._first
        if not noted or seconds < 1:
            raise ConfigurationError(
                f"the recording holds {noted} operations, and less than a second: a rate needs more; record "
                "for a few minutes at least"
            )
        return LoadProfile(
            name,
            {
                each: _table_load(table, seconds)
                for each, table in sorted(self._tables.items())
                if table.kinds
            },
            Recorded(
                round(seconds, 1),
                datetime.fromtimestamp(self._first, UTC).isoformat(timespec="seconds"),
                noted,
                sum(table.lost for table in self._tables.values()),
                len(self._salts),
            ),
            {each: tuple(sorted(table.places)) for each, table in sorted(self._tables.items())},
        )


def condense(lines: Iterable[Line], *, name: str) -> LoadProfile:
    """The profile of recordings.

    Partitions are put in order by how often they were asked for, within every group of processes that shares
    a salt; what the groups' first partitions were asked for is added up, and so on. So the skew stays, and
    which key was which is gone.

    Args:
        lines: of all their files.
        name: of the profile, for people.

    Raises:
        ConfigurationError: there is too little to tell a rate.
    """
    condenser = _Condenser()
    for line in lines:
        condenser.take(line)
    return condenser.profile(name)


def _table_load(table: _Table, seconds: float) -> TableLoad:
    scale = (table.noted + table.lost) / table.noted / seconds
    sizes = table.read_sizes or sum((kind.sizes for kind in table.kinds.values()), Counter[int]())
    ranked = {
        index: _ranked(space for (_, each), space in table.spaces.items() if each == index)
        for index in {index for _, index in table.spaces}
    }
    page = max(
        (_page(kind) for (name, i), kind in table.kinds.items() if name == "Query" and not i), default=1
    )
    spaces = {
        index: tuple(_classes(partitions, 1 if index else page))
        for index, partitions in ranked.items()
        if partitions
    }
    rates = sorted(
        (_rate(operation, index, kind, scale, sizes) for (operation, index), kind in table.kinds.items()),
        key=lambda rate: -rate.per_second,
    )
    # Nothing but Scans: any partition will do.
    own = spaces.pop("", (PartitionClass(1, {"every": 100.0}),))
    return TableLoad(tuple(rates), own, dict(sorted(spaces.items())))


def _rate(operation: str, index: str, kind: _Kind, scale: float, sizes: Counter[int]) -> OperationRate:
    usual = OperationRate(operation, 1.0)
    sized = (kind.sizes or sizes) if operation in _WRITES_SIZED else Counter[int]()
    return OperationRate(
        operation,
        float(f"{kind.count * scale:.4g}"),
        index or None,
        _percent(kind.consistent, kind.noted),
        _percent(kind.conditional, kind.noted),
        _percent(kind.ranged, kind.noted),
        _shares(kind.keys) if operation not in _SINGLE else usual.keys,
        _shares(kind.limits),
        _shares(sized) or usual.item_bytes,
        {act: _percent(count, kind.acts.total()) for act, count in kind.acts.most_common()}
        if operation in {"BatchWriteItem", "TransactWriteItems"}
        else usual.acts,
    )


_SINGLE = frozenset({"GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"})


def _percent(part: float, whole: float) -> float:
    return float(f"{100 * part / whole:.4g}") if whole else 0.0


def _page(kind: _Kind) -> int:
    """How many items a page had, on average: so many a partition has at least."""
    return max(1, round(kind.answered / kind.answers)) if kind.answers else 1


def _shares(counts: Counter[int]) -> Shares:
    """Numbers with their shares in percent; the most frequent ones stand for their neighbours."""
    values = sorted(value for value, _ in counts.most_common(_MOST_VALUES))
    shares: Counter[int] = Counter()
    for value, count in counts.items():
        shares[min(values, key=lambda each: abs(each - value))] += count
    return tuple((value, _percent(shares[value], counts.total())) for value in values)


def _ranked(spaces: Iterable[Space]) -> list[_Partition]:
    """The partitions from the hottest to the coldest; those of several salts are added up rank by rank."""
    ranks: list[_Partition] = []
    for space in spaces:
        for rank, partition in enumerate(sorted(space.values(), key=lambda each: -each.keys)):
            if rank == len(ranks):
                ranks.append(_Partition())
            ranks[rank].by_operation.update(partition.by_operation)
            for sort, (_, count) in enumerate(partition.items.most_common()):
                ranks[rank].items[str(sort)] += count
    return ranks


def _classes(ranks: Sequence[_Partition], page: int) -> Iterator[PartitionClass]:
    totals = sum((partition.by_operation for partition in ranks), Counter[str]())
    for start, end in _steps(len(ranks), alone=_HOTTEST):
        chosen = ranks[start:end]
        counts = sum((partition.by_operation for partition in chosen), Counter[str]())
        sorts: Counter[int] = Counter()
        for partition in chosen:
            for sort, (_, count) in enumerate(partition.items.most_common()):
                sorts[sort] += count
        distinct = sum(len(partition.items) for partition in chosen) / len(chosen)
        yield PartitionClass(
            end - start,
            {operation: _percent(count, totals[operation]) for operation, count in counts.most_common()},
            max(1, ceil(distinct), page),
            tuple(_sort_shares([sorts[rank] for rank in range(len(sorts))])) or ((1, 100.0),),
        )


def _sort_shares(counts: Sequence[int]) -> Iterator[tuple[int, float]]:
    total = sum(counts)
    for start, end in _steps(len(counts), alone=4):
        yield end - start, _percent(sum(counts[start:end]), total)


def _steps(count: int, *, alone: int) -> Iterator[tuple[int, int]]:
    """Stretches of ranks: the first ones alone, and then longer and longer."""
    start, length = 0, 1.0
    while start < count:
        if start >= alone:
            length *= _GROWTH
        end = min(count, start + int(length))
        yield start, end
        start = end
