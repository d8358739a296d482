"""The AWS clients that only ask how things are set up: short timeouts, few tries."""

import threading
from typing import Any, Self

import boto3
from botocore.config import Config

_CONFIG = Config(connect_timeout=2.0, read_timeout=5.0, retries={"mode": "standard", "total_max_attempts": 2})


class DescribingClients:
    """boto3 clients by their service, made when they are first asked for; a context manager.

    Args:
        endpoint_url: of a DynamoDB stand-in; missing: AWS's own.
        region: missing: the environment's, as boto3 finds it. So it is with the credentials.
    """

    def __init__(self, *, endpoint_url: str | None = None, region: str | None = None) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str | None], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            made, self._made = self._made, {}
        for client in made.values():
            client.close()

    def __call__(self, service: str, region: str | None = None) -> Any:
        """The client of a service.

        Args:
            service: as boto3 calls it.
            region: where it differs from DynamoDB's.
        """
        key = (service, region or self._region)
        with self._lock:
            if key not in self._made:
                url = self._endpoint_url if service == "dynamodb" else None
                session: Any = boto3.Session(region_name=key[1])
                self._made[key] = session.client(service, endpoint_url=url, config=_CONFIG)
            return self._made[key]
