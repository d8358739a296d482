"""The table of divergences itself."""

import re
from pathlib import Path

import pytest

from contract.divergences import DIVERGENCES

TESTS = frozenset(
    name
    for module in Path(__file__).parent.glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", module.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("engine", DIVERGENCES)
def test_a_divergence_names_tests_that_exist(engine):
    named = {test.partition("[")[0] for tests in DIVERGENCES[engine].values() for test in tests}
    assert named <= TESTS


@pytest.mark.parametrize("engine", DIVERGENCES)
def test_a_divergence_has_one_reason(engine):
    named = [test for tests in DIVERGENCES[engine].values() for test in tests]
    assert sorted(named) == sorted(set(named))
