"""A LaunchDarkly on the loopback interface."""

import pytest

from unit.flags.launchdarkly_service import running


@pytest.fixture
def launchdarkly():
    with running() as (service, url):
        service.url = url
        yield service
