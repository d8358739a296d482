"""What host names at RDS tell."""

import pytest

from dualstore.stores.rds_endpoints import Kind, endpoint_of


@pytest.mark.parametrize(
    ("host", "kind", "identifier"),
    [
        ("main.cluster-c0ffee.eu-west-1.rds.amazonaws.com", Kind.WRITER, "main"),
        ("main.cluster-ro-c0ffee.eu-west-1.rds.amazonaws.com.", Kind.READERS, "main"),
        ("some.cluster-custom-c0ffee.eu-west-1.rds.amazonaws.com", Kind.CUSTOM, None),
        ("MY-proxy.proxy-c0ffee.eu-west-1.rds.amazonaws.com", Kind.PROXY, "my-proxy"),
        ("other.endpoint.proxy-c0ffee.eu-west-1.rds.amazonaws.com", Kind.PROXY, None),
        ("one-1.c0ffee.eu-west-1.rds.amazonaws.com", Kind.INSTANCE, "one-1"),
    ],
)
def test_a_host_name_of_rds_tells_what_answers(host: str, kind: Kind, identifier: str | None) -> None:
    found = endpoint_of(host)
    assert (found.kind, found.identifier, found.region) == (kind, identifier, "eu-west-1")


@pytest.mark.parametrize(
    "host", ["", "localhost", "db.example", "main.cluster-c0ffee.rds.amazonaws.com.evil"]
)
def test_any_other_host_name_tells_nothing(host: str) -> None:
    assert not endpoint_of(host).is_rds


def test_regions_of_other_partitions_are_told() -> None:
    found = endpoint_of("main.cluster-c0ffee.us-gov-west-1.rds.amazonaws.com")
    assert found.region == "us-gov-west-1"
    assert endpoint_of("main.c0ffee.cn-north-1.rds.amazonaws.com.cn").region == "cn-north-1"
