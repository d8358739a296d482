"""Comparing certain keys only: a random sample, what has changed lately, or those that somebody names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from dualstore.items import Key, key_bytes
from dualstore.stores.ledger import Run, RunState
from dualstore.verify.bulk import KIND, summary
from dualstore.verify.findings import Finding, Verification
from dualstore.verify.judging import Judge
from dualstore.verify.recheck import Candidate
from dualstore.verify.run import Ledger
from dualstore.verify.tally import Tally, VerifyProgress

_KEYS_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class KeyedVerify:
    """Compares the items of certain keys on both sides. What it says, it says of these keys alone.

    Attributes:
        judge: both sides, and what gives candidates their verdicts.
        runs: the ledger.
        keys: the keys; one that comes twice in five hundred is looked at once.
        mode: how they were chosen, for the ledger.
        differences_kept: how many differences the result holds; all are counted.
        progress: called after each five hundred keys.
    """

    judge: Judge
    runs: Ledger
    keys: Iterable[Key]
    mode: str
    differences_kept: int = 1000
    progress: Callable[[VerifyProgress], None] = lambda _: None

    def run(self) -> Verification:
        """Compare the keys.

        Raises:
            ConfigurationError: repair is asked for, but nothing to settle with was given.
            Unavailable: a side was away for too long.
        """
        self.judge.check()
        self.runs.check()
        table = self.judge.shape.name
        run = self.runs.start(KIND, table, {"mode": self.mode, "repair": self.judge.repair})
        started = datetime.now(UTC)
        tally = Tally(segments=1, differences_kept=self.differences_kept, progress=self.progress)
        try:
            rows = sum(self._compare(run, tally, keys) for keys in _some_at_once(self.keys))
        except BaseException:
            self.runs.finish(run, RunState.ABANDONED, {})
            raise
        verification = tally.verification(
            run_id=run.id, table=table, rows_postgres=rows, started=started, finished=datetime.now(UTC)
        )
        state = RunState.FINISHED if verification.proven else RunState.FINISHED_WITH_FAILURES
        self.runs.finish(run, state, summary(verification) | {"mode": self.mode})
        return verification

    def _compare(self, run: Run, tally: Tally, keys: Sequence[Key]) -> int:
        """Compare some keys; how many of them there are on PostgreSQL."""
        judge = self.judge
        keys = list({key_bytes(judge.shape.keys, key): key for key in keys}.values())
        seen = judge.patiently(lambda: list(judge.sides.observe(keys)))
        candidates = [
            Candidate(key, observation)
            for key, observation in seen
            if observation.finding not in {Finding.EQUAL, Finding.EXPIRED}
        ]
        tally.compared(items=len(keys), equal=len(keys) - len(candidates))
        for judged in judge.judge(candidates, run_id=run.id):
            tally.judged(judge.shape.keys, judged)
        return len(keys) - sum(observation.finding is Finding.MISSING_ON_POSTGRES for _, observation in seen)


def _some_at_once(keys: Iterable[Key]) -> Iterator[Sequence[Key]]:
    rest = iter(keys)
    while some := list(islice(rest, _KEYS_AT_ONCE)):
        yield some
