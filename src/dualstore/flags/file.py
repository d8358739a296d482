"""Flags from a file, read by LaunchDarkly's own file data source: same evaluation, live, no account."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, Unpack

from dualstore.flags.conventions import FLAGS, Wishes, checked
from dualstore.flags.flagfile import create, set_values, signature
from dualstore.flags.source import NOTHING_REQUESTED, FlagProblem, ProblemKind, Problems, Requested

if TYPE_CHECKING:
    from ldclient import LDClient

SERVICE_CONTEXT_KEY = "dualstore"
_START_ATTEMPTS = 5


class FileFlags:
    """Follows a LaunchDarkly flag file: keys as in `conventions`, in `flagValues` or as full `flags`.

    The SDK polls the file's modification time. Not its watchdog mode: that looks at the source path of
    an event only, so it never sees a file that a rename put in place. Nor its flag listener: that
    compares versions, and an entry of `flagValues` has version 1 for ever. What announces a change here is
    the SDK's feature store, which is handed the whole file after each reload; every known table is then
    evaluated at once (16 µs a flag), and `requested` is a look-up.

    A file that cannot be read or parsed leaves the flags as they were. Edit it by renaming a new file over
    it, as `set` does: what is written in place may be read half, and again only at its next change.

    The first call of `requested` starts the SDK; its one thread ends with `close`.

    Args:
        path: the flag file. JSON; YAML where PyYAML is installed, and then `set` refuses.
        poll_interval: how often the file is looked at.
        on_problem: told of every flag without a usable value, each time it is evaluated.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        poll_interval: timedelta = timedelta(milliseconds=250),
        on_problem: Callable[[FlagProblem], None] | None = None,
    ) -> None:
        self._path = Path(path)
        self._poll_interval = poll_interval
        self._problems = Problems(on_problem)
        self._lock = RLock()
        self._client: LDClient | None = None
        self._closed = False
        self._requested: dict[str, Requested] = {}

    @property
    def path(self) -> Path:
        """The flag file."""
        return self._path

    @property
    def problems(self) -> Problems:
        """The flags that had no usable value so far."""
        return self._problems

    def create(self) -> None:
        """Write a flag file without flags, if there is no file yet."""
        create(self._path)

    def requested(self, table: str) -> Requested:
        """What the file asks for a table, as of the last poll."""
        known = self._requested.get(table)
        return known if known is not None else self._first_requested(table)

    def set(self, table: str, **wishes: Unpack[Wishes]) -> None:
        """Ask for something else by writing the file, which its followers see at their next poll.

        Other flags in the file stay as they are. A full flag definition of the same key gives way to a
        plain value. The file is replaced as a whole, under a lock that other writers take too, and
        is on disk when this returns; it is created where there is none.

        Args:
            table: the table's logical name.
            wishes: any of `stage`, `postgres_read_percent`, `mirror_percent`, `shadow_percent`; None
                removes the flag, what is not named stays.

        Raises:
            ConfigurationError: a value is not a stage or percentage, or the file is not a JSON flag file.
        """
        values = checked(table, wishes)
        set_values(
            self._path, {flag.key(table): values[flag.field] for flag in FLAGS if flag.field in values}
        )

    def close(self) -> None:
        """Stop following the file."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _first_requested(self, table: str) -> Requested:
        with self._lock:
            if self._client is None and not self._closed:
                self._client = self._start()
            return self._requested.setdefault(table, self._evaluated(table))

    def _start(self) -> "LDClient":
        """A client of our own, never the SDK's global one."""
        # Imported late: it takes most of a second, and only those who follow a flag file need it.
        from ldclient import Config, LDClient  # noqa: PLC0415
        from ldclient.feature_store import InMemoryFeatureStore  # noqa: PLC0415
        from ldclient.integrations import Files  # noqa: PLC0415

        reloaded = self._reloaded

        class AnnouncingStore(InMemoryFeatureStore):
            def init(self, all_data: Any) -> None:
                super().init(all_data)  # type: ignore[no-untyped-call]
                reloaded()

        client: LDClient | None = None
        for _ in range(_START_ATTEMPTS):
            if client is not None:
                client.close()  # type: ignore[no-untyped-call]
            before = signature(self._path)
            client = LDClient(
                Config(
                    "no-account",
                    update_processor_class=Files.new_data_source(
                        paths=[str(self._path)],
                        auto_update=True,
                        poll_interval=self._poll_interval.total_seconds(),
                        force_polling=True,
                    ),
                    feature_store=AnnouncingStore(),  # type: ignore[no-untyped-call]
                    send_events=False,
                    diagnostic_opt_out=True,
                )
            )
            # The SDK reads the file first and notes its time second; a change in between is never seen.
            if signature(self._path) == before:
                break
        assert client is not None  # noqa: S101 - there is at least one attempt
        client.data_source_status_provider.add_listener(self._status_changed)
        if not client.is_initialized():
            self._unreachable()
        return client

    def _status_changed(self, status: Any) -> None:
        if status.state.name != "VALID":
            self._unreachable()

    def _unreachable(self) -> None:
        self._problems.occurred(FlagProblem(None, str(self._path), ProblemKind.UNREACHABLE))

    def _reloaded(self) -> None:
        """Called by the SDK's polling thread once it has taken over the file's content."""
        with self._lock:
            if self._client is None:
                return
            self._problems.resolved(None, str(self._path))
            self._requested = {table: self._evaluated(table) for table in self._requested}

    def _evaluated(self, table: str) -> Requested:
        if self._client is None:
            return NOTHING_REQUESTED
        from ldclient import Context  # noqa: PLC0415 - as in `_start`

        context = Context.builder(SERVICE_CONTEXT_KEY).kind("service").build()
        values: dict[str, Any] = {}
        for flag in FLAGS:
            key = flag.key(table)
            detail = self._client.variation_detail(key, context, None)
            values[flag.field] = flag.read(detail.value)
            problem = _problem(detail.reason, usable=values[flag.field] is not None)
            if problem is None:
                self._problems.resolved(table, key)
            else:
                self._problems.occurred(FlagProblem(table, key, problem))
        return Requested(**values)


_SDK_ERRORS = {
    "FLAG_NOT_FOUND": ProblemKind.MISSING,
    "CLIENT_NOT_READY": ProblemKind.UNREACHABLE,
}


def _problem(reason: dict[str, Any], *, usable: bool) -> ProblemKind | None:
    """What keeps a flag from having a value, from the SDK's evaluation reason."""
    if reason.get("kind") == "ERROR":
        return _SDK_ERRORS.get(reason.get("errorKind", ""), ProblemKind.MALFORMED)
    return None if usable else ProblemKind.MALFORMED
