"""All mutants, by rule, and the mechanisms that have none.

Rules are those of DESIGN, section 3, and of docs/explanation/replication.md.
"""

from replication.mutants_failing_over import FAILING_OVER
from replication.mutants_inward import INWARD
from replication.mutants_outward import OUTWARD
from replication.mutants_upkeep import UPKEEP

MUTANTS = tuple(sorted((*INWARD, *UPKEEP, *OUTWARD, *FAILING_OVER), key=lambda mutant: mutant.rule))

_SECOND_LINE = "a second line of defence: no schedule was found in which it alone was missed"
_SPARES = "it spares work: without it a key is settled, which is right as well"
_SQL = "only a real PostgreSQL has it"

WITHOUT_A_MUTANT = (
    ("1", "an update notes its predecessor in `_dsp`", _SPARES),
    (
        "1",
        "a stamp that does not fit is left out",
        "tests/unit/replication/test_requests.py: items here are small",
    ),
    ("2", "a row that has the writer's stamp already is left", _SPARES),
    ("2", "the image is mirrored, never the operation", "the mirror's protocol takes no operations"),
    ("3", "after three tries, under the key's lock", "without it a settle may fail, and its key is in doubt"),
    ("4", "the relay's times: what a dead process wrote, and a grant's length more", _SECOND_LINE),
    ("4", "a stream that is switched off makes the table suspect before it ceases to count", _SECOND_LINE),
    ("4", "`pg_snapshot_xmin` before a copy is done", f"{_SQL}; tests/integration/test_backfill.py"),
    ("4", "incremental exports name keys, not images", "not built yet"),
    ("5", "stamps derived from the token", f"{_SECOND_LINE} (a call repeats its request as it was)"),
    ("5", "the token is remembered by PostgreSQL", "tests/contract/test_authority.py"),
    (
        "6",
        "the grant is looked at again after the mirror's answer",
        f"{_SECOND_LINE} (a read under a grant began before any write that it could miss was acknowledged)",
    ),
    ("6", "the gate reopens in two steps", f"{_SECOND_LINE}, but one in thousands"),
    (
        "6",
        "suspects shut the mirror",
        f"{_SECOND_LINE} (until a death is noticed, nothing acknowledged is missed)",
    ),
    (
        "7",
        "a lane is leased to one worker",
        "conditions and tokens bear two workers of one key: missed about once in ten thousand schedules",
    ),
    (
        "7",
        "entries are kept for 15 minutes, to answer for a lost COMMIT",
        f"{_SQL}; tests/integration/postgres/test_unknown_commit.py",
    ),
    (
        "7",
        "DynamoDB's own deletions are told from others",
        "without it what has expired is sent and expires again",
    ),
    ("8", "the epoch is counted up by a move", f"{_SECOND_LINE}, beside role and stamps"),
    ("8", "stream, journal and dirty keys: each of the three alone", _SECOND_LINE),
    ("8", "suspect, and unverified: each of the two alone", _SECOND_LINE),
    (
        "8",
        "a key that is mirrored late counts as an unfinished write",
        f"{_SECOND_LINE}: the stream tells of it too; tests/unit/replication/test_deferred.py",
    ),
    ("8", "the fence of what is put into the outbox", f"{_SECOND_LINE}; tests/contract/test_outbox.py"),
    ("8", "the fence of the pages of a copy", "tests/integration/postgres/test_fence.py"),
    (
        "8",
        "a held route holds dials, never the epoch",
        "tests/integration/test_routing.py: one process is enough to see it",
    ),
    (
        "8",
        "a grant at `live` is no older than the last look at DynamoDB",
        "what is written without it is listed as lost; tests/unit/replication/test_failover.py",
    ),
    (
        "8",
        "a sender sends nothing of an epoch that is over",
        "missed about once in two thousand schedules; tests/unit/replication/test_failover.py",
    ),
    (
        "9",
        "lock first, later statements, READ COMMITTED",
        f"{_SQL}; tests/integration/postgres/test_interleavings.py",
    ),
    ("10", "what is not protected", "there is nothing to take away; see [protection](protection.md)"),
)
"""Rule, mechanism, and why it has no mutant."""
