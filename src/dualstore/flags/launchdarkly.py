"""Flags from LaunchDarkly's service, through its own SDK."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import SecretStr

from dualstore.flags.evaluation import SERVICE, Identity
from dualstore.flags.migration_ops import Listen, MigrationOps
from dualstore.flags.sdk import Link, SdkFlags, has_reached_its_source
from dualstore.flags.source import NOTHING_REQUESTED, FlagProblem

if TYPE_CHECKING:
    from ldclient import LDClient

NAME = "LaunchDarkly"
_CONNECT_SECONDS, _READ_SECONDS = 2.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How an SDK client of dualstore's own reaches LaunchDarkly, or a Relay Proxy.

    Attributes:
        sdk_key: the server-side SDK key of an environment.
        base_uri: where the SDK polls; None is LaunchDarkly itself, as for the others.
        stream_uri: where it listens.
        events_uri: where it reports.
        start_wait: how long the first table waits for flags. They only ask, so not waiting does no harm:
            until they are there every table stays as it is recorded.
    """

    sdk_key: SecretStr
    base_uri: str | None = None
    stream_uri: str | None = None
    events_uri: str | None = None
    start_wait: timedelta = timedelta(0)


class LaunchDarklyFlags(SdkFlags):
    """Follows LaunchDarkly: keys as in `conventions`, the stage from a migration flag or a string flag.

    Changes come by the SDK's flag listener. While the service is out of reach the flags stay as they were.
    Until it is reached for the first time nothing is asked for, whatever a feature store of the team's
    remembers; so a client that never reaches it (daemon mode, offline, the SDK's test data) is not followed.

    A client of our own asks for all contexts but the service's through a second SDK client that reads the
    same flags and sends no events: LaunchDarkly sees one context per kind, whatever is probed. Through a
    client of the team's the probes are seen too, 64 per kind (and 1,000 with `key_contexts`), as anonymous
    contexts, which count. Source: Anonymous contexts, LaunchDarkly's documentation.

    Args:
        client: an SDK client that the team has, which stays theirs to close; or how to reach LaunchDarkly.
        identity: as whom flags are evaluated.
        key_contexts: whether a percentage may be a boolean flag with a rollout; see `Evaluator`.
        listen: `Telemetry.listen`, to feed LaunchDarkly's migration metrics; None feeds nothing.
        operations_per_second: the most operations that are reported to it.
        on_problem: told of every flag without a usable value, each time it is evaluated.
    """

    def __init__(
        self,
        client: "LDClient | Connection",
        *,
        identity: Identity = SERVICE,
        key_contexts: bool = False,
        listen: Listen | None = None,
        operations_per_second: int = 100,
        on_problem: Callable[[FlagProblem], None] | None = None,
    ) -> None:
        super().__init__(NAME, identity=identity, key_contexts=key_contexts, on_problem=on_problem)
        self._given = client
        self._listen = listen
        self._operations_per_second = operations_per_second
        self._reports: MigrationOps | None = None

    def close(self) -> None:
        """Follow no further, and report what waits to be."""
        reports, self._reports = self._reports, None
        if reports is not None:
            reports.close()
        super().close()

    def _connect(self) -> Link:
        context = self._identity.context()  # refused before anything is opened
        link = _opened(self._given) if isinstance(self._given, Connection) else _borrowed(self._given)
        client, status = link.client, link.client.data_source_status_provider
        client.flag_tracker.add_listener(self._flag_changed)
        status.add_listener(self._status_changed)
        has_waited = not isinstance(self._given, Connection) or self._given.start_wait
        if not has_reached_its_source(client) and (has_waited or status.status.error is not None):
            self._unreachable()
        if self._listen is not None:
            self._reports = MigrationOps(
                client,
                context,
                stage_of=lambda table: self._requested.get(table, NOTHING_REQUESTED).stage,
                per_second=self._operations_per_second,
            )
            self._reports.start(self._listen)

        def close() -> None:
            client.flag_tracker.remove_listener(self._flag_changed)
            status.remove_listener(self._status_changed)
            link.close()

        return Link(client, silent=link.silent, close=close)


def _borrowed(client: "LDClient") -> Link:
    return Link(client, silent=client, close=lambda: None)


def _opened(connection: Connection) -> Link:
    """A client of our own, never the SDK's global one, and its silent twin."""
    # Imported late: it takes most of a second, and only those who follow LaunchDarkly need it.
    from ldclient import Config, LDClient  # noqa: PLC0415
    from ldclient.config import HTTPConfig  # noqa: PLC0415
    from ldclient.feature_store import InMemoryFeatureStore  # noqa: PLC0415

    store = InMemoryFeatureStore()  # type: ignore[no-untyped-call]
    uris = {
        "base_uri": connection.base_uri,
        "stream_uri": connection.stream_uri,
        "events_uri": connection.events_uri,
    }
    client = LDClient(
        Config(
            connection.sdk_key.get_secret_value(),
            feature_store=store,
            # Closing sends the last events, and tries twice: a process must not wait for that where
            # LaunchDarkly is away. The stream has a read timeout of its own.
            http=HTTPConfig(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS),
            wrapper_name="dualstore",
            diagnostic_opt_out=True,
            **{name: uri for name, uri in uris.items() if uri is not None},  # type: ignore[arg-type]
        ),
        start_wait=connection.start_wait.total_seconds(),
    )
    # In daemon mode a client only reads its store, which the other one fills.
    silent = LDClient(
        Config("no-account", feature_store=store, use_ldd=True, send_events=False, diagnostic_opt_out=True)
    )

    def close() -> None:
        client.close()  # type: ignore[no-untyped-call]
        silent.close()  # type: ignore[no-untyped-call]

    return Link(client, silent=silent, close=close)
