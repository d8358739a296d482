"""The rollout: a migration as one file that is carried out, resumed and rolled back, with evidence."""

from dualstore.rollout import actions as _actions  # registers them
from dualstore.rollout.context import Context, Progress, Progressed, Tools
from dualstore.rollout.document import DocumentError, Mistake
from dualstore.rollout.drafting import draft_configuration, draft_plan
from dualstore.rollout.evidence import snapshot_of
from dualstore.rollout.gates import judged
from dualstore.rollout.judgement import EvidenceSnapshot, GateResult, Judgement, Limits, worst
from dualstore.rollout.plan import Plan, load_plan, parse_plan, schema_of_plans
from dualstore.rollout.recorded import events_of
from dualstore.rollout.registry import ACTIONS, Action, Check, Evidence, Step, StepRefused, register
from dualstore.rollout.rehearsal import Rehearsal, rehearse
from dualstore.rollout.rolling_back import (
    RolledBack,
    TakenBack,
    rollback_one_step,
    rollback_to_the_beginning,
)
from dualstore.rollout.runner import Ended, Looked, Outcome, bookkeeping_check, carrying_out, look, run
from dualstore.rollout.standing import EventKind, PlanEvent, Standing, StepState, standing

STANDARD_ACTIONS = _actions.STANDARD

__all__ = [
    "ACTIONS",
    "STANDARD_ACTIONS",
    "Action",
    "Check",
    "Context",
    "DocumentError",
    "Ended",
    "EventKind",
    "Evidence",
    "EvidenceSnapshot",
    "GateResult",
    "Judgement",
    "Limits",
    "Looked",
    "Mistake",
    "Outcome",
    "Plan",
    "PlanEvent",
    "Progress",
    "Progressed",
    "Rehearsal",
    "RolledBack",
    "Standing",
    "Step",
    "StepRefused",
    "StepState",
    "TakenBack",
    "Tools",
    "bookkeeping_check",
    "carrying_out",
    "draft_configuration",
    "draft_plan",
    "events_of",
    "judged",
    "load_plan",
    "look",
    "parse_plan",
    "register",
    "rehearse",
    "rollback_one_step",
    "rollback_to_the_beginning",
    "run",
    "schema_of_plans",
    "snapshot_of",
    "standing",
    "worst",
]
