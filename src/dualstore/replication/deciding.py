"""Changing a control record: from what stands there now, again where somebody else was faster."""

from collections.abc import Callable, Mapping

from dualstore.control import ControlRecord
from dualstore.stores.control_homes import ControlHome

Change = Callable[[ControlRecord], Mapping[str, object]]
"""Tells which fields of a record to set, seeing the record as it stands; none where nothing is to be done."""


def decide(find: Callable[[], tuple[ControlHome, ControlRecord]], change: Change) -> ControlRecord:
    """Change the record that decides.

    Args:
        find: reads it now, and says where it is kept; raises where none can be seen to decide.
        change: tells what to set, seeing the record that it is set in.

    Returns:
        The record as it is now.
    """
    while True:
        home, record = find()
        changes = change(record)
        if not changes:
            return record
        changed = home.change(record, **changes)
        if changed is not None:
            return changed
