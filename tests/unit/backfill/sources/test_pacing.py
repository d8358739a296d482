"""Reading keeps to its limit, gives way to throttling and comes back, and waits while an alarm rings."""

from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from dualstore.backfill.sources.pacing import AlarmWatch, ReadPace
from dualstore.errors import UnusableSource


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Halfway:
    """Chance that always gives the least."""

    def uniform(self, low, _high):
        return low


@pytest.fixture
def clock():
    return Clock()


def pace(limit, clock):
    return ReadPace(limit, clock=clock, chance=Halfway())


def seconds_to_read(reader, clock, *, pages, units):
    began = clock.now
    for _ in range(pages):
        clock.now += reader.delay()
        reader.spent(units, items=10)
    clock.now += reader.delay()
    return clock.now - began


def test_a_limit_is_kept_to(clock):
    assert seconds_to_read(pace(100, clock), clock, pages=50, units=20) == pytest.approx(10)


def test_without_a_limit_nothing_waits(clock):
    reader = pace(None, clock)
    assert seconds_to_read(reader, clock, pages=50, units=1000) == 0
    assert (reader.units_per_second, reader.page_items()) == (None, None)


def test_a_pause_is_not_followed_by_a_rush(clock):
    reader = pace(100, clock)
    clock.now += 1000
    assert seconds_to_read(reader, clock, pages=10, units=20) == pytest.approx(2)


def test_throttling_halves_the_rate_and_it_comes_back_within_20_seconds(clock):
    reader = pace(100, clock)
    reader.throttled()
    assert reader.units_per_second == 50
    clock.now += 10
    assert reader.units_per_second == pytest.approx(75)
    clock.now += 11
    assert reader.units_per_second == 100


def test_without_a_limit_throttling_sets_one_from_what_was_read(clock):
    reader = pace(None, clock)
    for _ in range(10):
        reader.spent(300, items=100)
        clock.now += 1
    reader.throttled()
    assert reader.units_per_second == pytest.approx(150)


def test_requests_that_go_on_being_refused_wait_longer_and_longer_but_not_forever(clock):
    reader = pace(100, clock)
    waits = []
    for _ in range(12):
        reader.throttled()
        waits.append(reader.delay())
        clock.now += waits[-1]
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert waits[-1] == pytest.approx(10)
    assert reader.units_per_second >= 1
    reader.spent(1, items=1)
    clock.now += 10
    reader.throttled()
    assert reader.delay() == pytest.approx(0.05)


def test_readers_that_share_a_table_come_to_share_its_capacity(clock):
    """Two readers, one of which begins far ahead; the table throttles whoever asks while it is over 100."""
    readers = [pace(None, clock), pace(None, clock)]
    readers[0].spent(2000, items=1000)
    readers[1].spent(100, items=1000)
    clock.now += 10
    for reader in readers:
        reader.throttled()
    for _ in range(3000):
        clock.now += 0.1
        rates = [reader.units_per_second for reader in readers]
        if sum(rates) > 100:
            max(zip(rates, readers, strict=True), key=lambda pair: pair[0])[1].throttled()
    low, high = sorted(reader.units_per_second for reader in readers)
    assert low > high / 3


def test_a_page_asks_for_no_more_than_a_second_may_read(clock):
    reader = pace(10, clock)
    assert reader.page_items() == 10
    reader.spent(50, items=100)
    assert reader.page_items() == 20
    reader.spent(400, items=1)
    assert reader.page_items() == 1


# Alarms


class CloudWatch:
    """Answers as CloudWatch does, with what is said here."""

    def __init__(self, **states):
        self.states, self.calls, self.refuses = states, 0, False

    def describe_alarms(self, AlarmNames, AlarmTypes):  # noqa: N803
        assert AlarmTypes == ["MetricAlarm", "CompositeAlarm"]
        self.calls += 1
        if self.refuses:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "DescribeAlarms")
        found = [{"AlarmName": n, "StateValue": self.states[n]} for n in AlarmNames if n in self.states]
        return {"MetricAlarms": found[:1], "CompositeAlarms": found[1:]}


def watch(cloudwatch, clock, *names):
    return AlarmWatch(lambda: cloudwatch, names, clock=clock)


def test_alarms_are_looked_at_every_30_seconds(clock):
    cloudwatch = CloudWatch(one="OK", two="OK")
    alarms = watch(cloudwatch, clock, "one", "two")
    assert alarms.ringing() == ()
    cloudwatch.states["two"] = "ALARM"
    clock.now += 29
    assert alarms.ringing() == ()
    clock.now += 1
    assert alarms.ringing() == ("two",)
    assert cloudwatch.calls == 2


def test_a_look_that_fails_leaves_things_as_they_were(clock):
    cloudwatch = CloudWatch(one="ALARM")
    alarms = watch(cloudwatch, clock, "one")
    assert alarms.ringing() == ("one",)
    cloudwatch.refuses = True
    clock.now += timedelta(minutes=1).total_seconds()
    assert alarms.ringing() == ("one",)


def test_a_missing_alarm_and_a_missing_permission_are_found_at_the_start(clock):
    cloudwatch = CloudWatch(one="OK")
    watch(cloudwatch, clock, "one").check()
    with pytest.raises(UnusableSource, match="no alarm named other"):
        watch(cloudwatch, clock, "one", "other").check()
    cloudwatch.refuses = True
    with pytest.raises(UnusableSource, match="cloudwatch:DescribeAlarms"):
        watch(cloudwatch, clock, "one").check()


def test_without_alarms_cloudwatch_is_left_alone(clock):
    cloudwatch = CloudWatch()
    alarms = watch(cloudwatch, clock)
    alarms.check()
    assert (alarms.ringing(), cloudwatch.calls) == ((), 0)
