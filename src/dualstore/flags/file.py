"""Flags from a file, read by LaunchDarkly's own file data source: same evaluation, live, no account."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack

from dualstore.flags.conventions import FLAGS, Wishes, checked
from dualstore.flags.evaluation import SERVICE, Identity
from dualstore.flags.flagfile import create, set_values, signature
from dualstore.flags.sdk import Link, SdkFlags
from dualstore.flags.source import FlagProblem

_START_ATTEMPTS = 5


class FileFlags(SdkFlags):
    """Follows a LaunchDarkly flag file: keys as in `conventions`, in `flagValues` or as full `flags`.

    The SDK polls the file's modification time. Not its watchdog mode: that looks at the source path of
    an event only, so it never sees a file that a rename put in place. Nor its flag listener: that
    compares versions, and an entry of `flagValues` has version 1 for ever. What announces a change here is
    the SDK's feature store, which is handed the whole file after each reload; every known table is then
    evaluated at once, and `requested` is a look-up.

    A file that cannot be read or parsed leaves the flags as they were. Edit it by renaming a new file over
    it, as `set` does: what is written in place may be read half, and again only at its next change.

    The first call of `requested` starts the SDK; its one thread ends with `close`.

    Args:
        path: the flag file. JSON; YAML where PyYAML is installed, and then `set` refuses.
        poll_interval: how often the file is looked at.
        identity: as whom full flag definitions are evaluated.
        key_contexts: whether a percentage may be a boolean flag with a rollout; see `Evaluator`.
        on_problem: told of every flag without a usable value, each time it is evaluated.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        poll_interval: timedelta = timedelta(milliseconds=250),
        identity: Identity = SERVICE,
        key_contexts: bool = False,
        on_problem: Callable[[FlagProblem], None] | None = None,
    ) -> None:
        super().__init__(str(path), identity=identity, key_contexts=key_contexts, on_problem=on_problem)
        self._path = Path(path)
        self._poll_interval = poll_interval

    @property
    def path(self) -> Path:
        """The flag file."""
        return self._path

    def create(self) -> None:
        """Write a flag file without flags, if there is no file yet."""
        create(self._path)

    def set(self, table: str, **wishes: Unpack[Wishes]) -> Callable[[], None]:
        """Ask for something else by writing the file, which its followers see at their next poll.

        Other flags in the file stay as they are. A full flag definition of the same key gives way to a
        plain value. The file is replaced as a whole, under a lock that other writers take too, and
        is on disk when this returns; it is created where there is none.

        Args:
            table: the table's logical name.
            wishes: any of `stage`, `postgres_read_percent`, `mirror_percent`, `shadow_percent`; None
                removes the flag, what is not named stays.

        Returns:
            What puts these flags back as they were, when called.

        Raises:
            ConfigurationError: a value is not a stage or percentage, or the file is not a JSON flag file.
        """
        values = checked(table, wishes)
        return set_values(
            self._path, {flag.key(table): values[flag.field] for flag in FLAGS if flag.field in values}
        )

    def _connect(self) -> Link:
        """A client of our own, never the SDK's global one."""
        # Imported late: it takes most of a second, and only those who follow a flag file need it.
        from ldclient import Config, LDClient  # noqa: PLC0415
        from ldclient.feature_store import InMemoryFeatureStore  # noqa: PLC0415
        from ldclient.integrations import Files  # noqa: PLC0415

        reloaded = self._all_changed

        class AnnouncingStore(InMemoryFeatureStore):
            def init(self, all_data: Any) -> None:
                super().init(all_data)  # type: ignore[no-untyped-call]
                reloaded()  # does nothing before the client is up

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
        return Link(client, silent=client, close=client.close)
