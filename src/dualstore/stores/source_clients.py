"""The AWS clients that a backfill reads with, made when they are first asked for."""

import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from dualstore.stores.dynamo_exports import TableIdentity, table_identity
from dualstore.stores.dynamo_whole import refuse_half_answers

# AWS, "Endpoints and quotas for Amazon DynamoDB": also with account ids, dual stack, FIPS and in China.
_AT_AWS = re.compile(r"\.(amazonaws\.com(\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)$")
# AWS, "Dual-stack and FIPS endpoints", SDKs and Tools Reference Guide.
_ENDPOINT_KINDS = ("use_dualstack_endpoint", "use_fips_endpoint")
_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 64


class SourceClients:
    """Clients of DynamoDB for Scans, of S3 and of CloudWatch; a context manager that closes them.

    S3 and CloudWatch are found as boto3 finds them, by the region and by AWS_ENDPOINT_URL_S3 and
    AWS_ENDPOINT_URL_CLOUDWATCH. Threads may share the clients.

    Args:
        endpoint_url: of a DynamoDB stand-in; missing: AWS's own.
        region: missing: the environment's, as boto3 finds it. So it is with the credentials.
        read_timeout: for one answer; a Scan of a megabyte takes longer than a read of the application.
        endpoint_kinds: of AWS's endpoints of DynamoDB, as options of botocore's `Config`.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        read_timeout: timedelta = timedelta(seconds=30),
        endpoint_kinds: Mapping[str, bool] | None = None,
    ) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._read_timeout = read_timeout
        self._endpoint_kinds = dict(endpoint_kinds or {})
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    @classmethod
    def like(cls, client: Any) -> Self:
        """Clients for where a DynamoDB client goes.

        Where that is an endpoint of dual stack or FIPS, which botocore finds by itself and refuses as a URL,
        these find it in the same way.
        """
        kinds = {name: True for name in _ENDPOINT_KINDS if getattr(client.meta.config, name, None)}
        endpoint_url = None if kinds else client.meta.endpoint_url
        return cls(endpoint_url=endpoint_url, region=client.meta.region_name, endpoint_kinds=kinds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            made, self._made = self._made, {}
        for client in made.values():
            client.close()

    def scan(self) -> Any:
        """A DynamoDB client that sends each request once, and whose Scans answer without items."""
        # One try: a throttled request has to be seen, to read more slowly from then on.
        retries = Config(retries={"mode": "standard", "total_max_attempts": 1}, parameter_validation=False)
        return self._dynamodb("scan", retries)

    def exports(self) -> Any:
        """A DynamoDB client for what is asked now and then."""
        retries = Config(retries={"mode": "standard", "total_max_attempts": 5})
        return self._dynamodb("exports", retries)

    def identity_of(self, table: str) -> TableIdentity | None:
        """Which table it is that goes by a name; None at a stand-in, whose ARNs no export has.

        Raises:
            ConfigurationError: there is none, or it may not be described.
            Unavailable: DynamoDB does not answer.
        """
        client = self.exports()
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        return table_identity(client, table) if _AT_AWS.search(host) else None

    def s3(self) -> Any:
        """A client of S3 that leaves checking content to those who know the MD5 of the file."""
        return self._client(
            "s3",
            "s3",
            Config(
                retries={"mode": "standard", "total_max_attempts": 5},
                response_checksum_validation="when_required",
            ),
        )

    def cloudwatch(self) -> Any:
        """A client of CloudWatch."""
        retries = Config(retries={"mode": "standard", "total_max_attempts": 3})
        return self._client("cloudwatch", "cloudwatch", retries)

    def _dynamodb(self, purpose: str, config: Config) -> Any:
        kinds = Config(**self._endpoint_kinds)
        return self._client("dynamodb", purpose, config.merge(kinds), endpoint_url=self._endpoint_url)

    def _client(self, service: str, purpose: str, config: Config, **options: Any) -> Any:
        shared = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=self._read_timeout.total_seconds(),
            max_pool_connections=_MAX_CONNECTIONS,
            tcp_keepalive=True,
        )
        with self._lock:
            if purpose not in self._made:
                session: Any = boto3.Session(region_name=self._region)
                self._made[purpose] = session.client(service, config=shared.merge(config), **options)
                if service == "dynamodb":
                    refuse_half_answers(self._made[purpose])
            return self._made[purpose]
