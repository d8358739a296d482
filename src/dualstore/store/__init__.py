"""`DualStore`: everything an application needs to live on two databases, put together."""

from dualstore.store.assembly import DualStore
from dualstore.store.options import Options
from dualstore.store.status import ProcessStatus, TableStatus
from dualstore.store.table import MigratedTable

__all__ = ["DualStore", "MigratedTable", "Options", "ProcessStatus", "TableStatus"]
