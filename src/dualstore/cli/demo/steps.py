"""The steps of the demo's migration: their names, what each is for, and how long things take."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

VICTIM = "victim"
"""The process of the service that is killed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take.

    Attributes:
        soak: how long each step is watched that is not the plan's.
        soak_of_the_plan: how long the plan's steps are, instead of what its file says; None: as it says.
        outage: how long a database is away.
        rushes: how often all callers rush at the same airports.
        calls_per_second: what each thread of the service aims at.
        airports: how many to move; None takes all.
    """

    soak: timedelta
    soak_of_the_plan: str | None
    outage: timedelta
    rushes: int
    calls_per_second: float
    airports: int | None

    @property
    def shortened(self) -> str:
        """What is made of the plan's times, in words."""
        if self.soak_of_the_plan is None:
            return "every step watched for as long as it says"
        return f"every step watched for {self.soak_of_the_plan} instead of what it says"


FULL = Pace(
    soak=timedelta(seconds=2.5),
    soak_of_the_plan=None,
    outage=timedelta(seconds=4),
    rushes=15,
    calls_per_second=18,
    airports=None,
)
FAST = Pace(
    soak=timedelta(seconds=0.5),
    soak_of_the_plan="500ms",
    outage=timedelta(seconds=2),
    rushes=5,
    calls_per_second=8,
    airports=2_000,
)

TO_READS: Mapping[str, str] = {
    "before": "the service as it was: PynamoDB and nothing else",
    "prepare": "the plan begins: both databases answer, DynamoDB is backed up, the schema is there",
    "off": "the models are bound while the service runs; DynamoDB alone is read and written",
    "dualwrite": "every write goes to DynamoDB, then to PostgreSQL",
    "backfill": "what was there before is copied, under traffic",
    "verify": "both sides are read whole and compared in both directions",
    "shadow": "every read is also run on the other side and compared, off the caller's path",
    "10 %": "PostgreSQL answers the reads of one partition key in ten",
    "50 %": "of one in two; a key that was among the first stays",
    "outage": "PostgreSQL crashes, stays away for a while, and comes back",
    "crash": "a process is killed after its write to DynamoDB, before its write to PostgreSQL",
    "0 %": "the plan is rolled back until DynamoDB answers every read, as one would in an emergency",
    "50 % again": "and resumed: forward again, every gate judged anew",
    "100 %": "PostgreSQL answers every read by key; listings that both sides order differently stay",
    "rush": "all callers rush at the same four airports, again and again; both sides are compared after each",
}
TO_AUTHORITY: Mapping[str, str] = {
    "relay": "the table gets a stream, and `dualstore relay` follows it in a process of its own",
    "live": "PostgreSQL decides every write; the relay brings DynamoDB after it",
    "SQL": "the team's own SQLAlchemy code and plain SQL write beside the service",
    "no mirror": "DynamoDB is out of reach and the relay is killed; callers are to notice nothing",
    "no authority": "PostgreSQL crashes, too, and comes back: callers are told what became of their writes",
    "catch up": "DynamoDB is back; another relay takes the dead one's lanes over and works the outbox off",
    "live rush": "all callers rush at the same four airports; DynamoDB is compared after each",
    "back": "the plan is rolled back: DynamoDB decides, PostgreSQL follows; both sides are compared whole",
    "live again": "and resumed: forward again",
    "rampdown": "DynamoDB still follows, for the way back; PostgreSQL is seen to answer every caller",
    "complete": "PostgreSQL alone, with DynamoDB out of reach",
}
DRAIN: Mapping[str, str] = {"drain": "the traffic ends, and what is in doubt is settled"}

FAULTS = frozenset({"outage", "crash", "no mirror", "no authority", "catch up"})
"""The steps in which something is broken on purpose, or not yet mended."""
NOT_COMPARABLE = FAULTS | TO_AUTHORITY.keys()
"""The steps in which a side may be known to be behind: DynamoDB follows a little later from `live` on."""


def steps(*, with_streams: bool) -> Mapping[str, str]:
    """All steps, in order; without streams PostgreSQL cannot become the authority."""
    return {**TO_READS, **(TO_AUTHORITY if with_streams else {}), **DRAIN}
