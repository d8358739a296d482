"""dualstore: move a running service from DynamoDB to PostgreSQL, each step reversible."""

from dualstore.repository import Repository
from dualstore.stages import Stage
from dualstore.store import DualStore

__all__ = ["DualStore", "Repository", "Stage"]
