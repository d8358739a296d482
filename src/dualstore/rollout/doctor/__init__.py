"""`dualstore doctor`: whether a deployment is fit for a migration, with the fix of whatever is not."""

from dualstore.rollout.doctor.checks import CHECKS
from dualstore.rollout.doctor.examination import PATIENCE, Examination, Examined, examine
from dualstore.rollout.doctor.findings import Check, Checklist, Finding, TableCheck, Verdict
from dualstore.rollout.doctor.patient import Patient

__all__ = [
    "CHECKS",
    "PATIENCE",
    "Check",
    "Checklist",
    "Examination",
    "Examined",
    "Finding",
    "Patient",
    "TableCheck",
    "Verdict",
    "examine",
]
