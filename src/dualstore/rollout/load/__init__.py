"""Load: recorded access patterns, condensed to a profile, replayed in staging at a multiple of production."""

from dualstore.rollout.load.condensing import condense
from dualstore.rollout.load.guard import CONFIRMATION, require_another_place, require_staging
from dualstore.rollout.load.outcome import Outcome, Row, Thresholds, outcome
from dualstore.rollout.load.processes import replay_in_processes
from dualstore.rollout.load.profile import (
    LoadProfile,
    OperationRate,
    PartitionClass,
    Recorded,
    TableLoad,
    load_profile,
    parse_profile,
    profile_text,
    schema_of_profiles,
)
from dualstore.rollout.load.replay import Replay, cleaned, replay, seeded
from dualstore.rollout.load.schedule import Schedule
from dualstore.rollout.load.tally import Cause, OperationTally, Tally

__all__ = [
    "CONFIRMATION",
    "Cause",
    "LoadProfile",
    "OperationRate",
    "OperationTally",
    "Outcome",
    "PartitionClass",
    "Recorded",
    "Replay",
    "Row",
    "Schedule",
    "TableLoad",
    "Tally",
    "Thresholds",
    "cleaned",
    "condense",
    "load_profile",
    "outcome",
    "parse_profile",
    "profile_text",
    "replay",
    "replay_in_processes",
    "require_another_place",
    "require_staging",
    "schema_of_profiles",
    "seeded",
]
