"""What operators look at: one picture of a migration, which every screen renders."""

from dualstore.rollout.screens.document import document, picture_document, tables_document
from dualstore.rollout.screens.gathering import flag_problems, gather, looked_at
from dualstore.rollout.screens.history import histories_of
from dualstore.rollout.screens.picture import Picture, PlanPicture, Shown, TablePicture

__all__ = [
    "Picture",
    "PlanPicture",
    "Shown",
    "TablePicture",
    "document",
    "flag_problems",
    "gather",
    "histories_of",
    "looked_at",
    "picture_document",
    "tables_document",
]
