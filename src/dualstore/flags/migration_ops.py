"""LaunchDarkly's migration metrics, fed with what our own telemetry sees."""

import logging
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from threading import Event as Signal
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

from dualstore.flags.conventions import FLAGS
from dualstore.stages import Side, Stage
from dualstore.telemetry import OK, Event, OperationFinished, ShadowCompared, Verdict

if TYPE_CHECKING:
    from ldclient import Context, LDClient
    from ldclient.migrations import OpTracker

logger = logging.getLogger(__name__)

Listen: TypeAlias = Callable[[Callable[[Event], None]], Callable[[], None]]
"""`Telemetry.listen`: takes who is told of events, and gives what ends that."""

_READS = frozenset({"GetItem", "BatchGetItem", "TransactGetItems", "Query", "Scan"})
_STAGE_FLAG = FLAGS[0]

_ANSWERS = frozenset({
    OK,
    "ConditionalCheckFailedException",
    "TransactionCanceledException",
    "IdempotentParameterMismatchException",
    "ValidationException",
})  # fmt: skip
"""Outcomes that are the caller's own: the side did what it was asked."""

_CONSISTENT = {Verdict.EQUAL: True, Verdict.LAG: True, Verdict.MISMATCH: False}
"""What a comparison proves; other verdicts prove nothing."""

_PAUSE_SECONDS = 1.0


class MigrationOps:
    """Reports operations to LaunchDarkly, where its page for a migration flag shows them.

    A caller pays for putting the event into a queue. Once a second a thread makes events of the SDK's own
    shape of them, by the SDK's own tracker, which also applies the sampling that the flag asks for. The
    first so many of each second are reported, the rest is counted.

    What a side answered and what a comparison found are reported apart, as telemetry hears of them:
    LaunchDarkly adds latencies, errors and consistency up by origin, so the sums are right. The origin
    `old` is DynamoDB, `new` is PostgreSQL.

    Args:
        client: sends them, by its own bounded queue.
        context: whose operations they are.
        stage_of: what the stage flag of a table asks for now; None where it has no value, and then there is
            nothing to report to.
        per_second: the most that is reported.
    """

    def __init__(
        self,
        client: "LDClient",
        context: "Context",
        *,
        stage_of: Callable[[str], Stage | None],
        per_second: int,
    ) -> None:
        self._client = client
        self._context = context
        self._stage_of = stage_of
        self._per_second = per_second
        self._waiting: deque[OperationFinished | ShadowCompared] = deque()
        self._stop = Signal()
        self._thread = Thread(target=self._work, name="dualstore-migration-metrics", daemon=True)
        self._stop_listening: Callable[[], None] = lambda: None
        self.dropped = 0
        """How many were not reported, roughly: threads may count at the same time."""

    def start(self, listen: Listen) -> None:
        """Listen and report from now on."""
        self._thread.start()
        self._stop_listening = listen(self.note)

    def note(self, event: Event) -> None:
        """Keep an event to report it later; in the thread where it happened."""
        if not isinstance(event, OperationFinished | ShadowCompared):
            return
        if len(self._waiting) < self._per_second:
            self._waiting.append(event)
        else:
            self.dropped += 1

    def report(self) -> None:
        """Hand what waits over to the SDK."""
        for _ in range(len(self._waiting)):
            event = self._waiting.popleft()
            stage = self._stage_of(event.table)
            if stage is not None:
                self._track(event, stage)

    def close(self) -> None:
        """Listen no longer, and report what waits; the client then sends it when it is closed or flushed."""
        self._stop_listening()
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.report()

    def _work(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            try:
                self.report()
            except Exception:
                logger.exception("Operations were not reported to LaunchDarkly; the next ones will be tried")

    def _track(self, event: OperationFinished | ShadowCompared, stage: Stage) -> None:
        from ldclient.migrations import Operation  # noqa: PLC0415 - see `launchdarkly`
        from ldclient.migrations import Stage as TheirStage  # noqa: PLC0415

        _, tracker = self._client.migration_variation(
            _STAGE_FLAG.key(event.table), self._context, TheirStage(stage.value)
        )
        tracker.operation(Operation.READ if event.operation in _READS else Operation.WRITE)
        measured = (
            _compared(tracker, event) if isinstance(event, ShadowCompared) else _finished(tracker, event)
        )
        if measured:
            self._client.track_migration_op(tracker)


def _finished(tracker: "OpTracker", event: OperationFinished) -> bool:
    from ldclient.migrations import Origin  # noqa: PLC0415 - see `launchdarkly`

    origin = Origin.OLD if event.side is Side.DYNAMODB else Origin.NEW
    tracker.invoked(origin).latency(origin, timedelta(seconds=event.seconds))
    if event.outcome not in _ANSWERS:
        tracker.error(origin)
    return True


def _compared(tracker: "OpTracker", event: ShadowCompared) -> bool:
    from ldclient.migrations import Origin  # noqa: PLC0415 - see `launchdarkly`

    consistent = _CONSISTENT.get(event.verdict)
    if consistent is None:
        return False
    tracker.invoked(Origin.OLD).invoked(Origin.NEW).consistent(lambda: consistent)
    return True
