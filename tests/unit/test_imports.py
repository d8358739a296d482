"""What a service imports: nothing that takes long and that only operators need."""

import subprocess
import sys

import pytest

_OF_OPERATORS = {"alembic", "jsonschema", "mako", "matplotlib", "pytest", "rich", "ruamel.yaml"}


@pytest.mark.parametrize(
    ("imported", "unneeded"),
    [
        ("dualstore.store", _OF_OPERATORS),
        ("dualstore.cli.relay", _OF_OPERATORS),
        ("dualstore.cli.main", {"dualstore.store", "sqlalchemy", "boto3"}),
    ],
)
def test_only_what_is_needed_is_imported(imported: str, unneeded: set[str]) -> None:
    program = f"import {imported}, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(told.stdout.split())
    assert imported in modules
    assert not unneeded & modules
