"""What the checks may look at: the configuration, both databases, and AWS's descriptions."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dualstore.config import Configuration
from dualstore.store import DualStore
from dualstore.stores.describing import DescribingClients
from dualstore.stores.rds_endpoints import Endpoint, Kind, endpoint_of

_HERE = {"", "127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A deployment that is looked at.

    Attributes:
        configuration: as loaded.
        store: of this configuration; it need not register.
        aws: clients that describe things.
        clock: this machine's time, in seconds since the epoch.
    """

    configuration: Configuration
    store: DualStore
    aws: DescribingClients
    clock: Callable[[], float] = time.time

    @property
    def url(self) -> sa.URL:
        """Where PostgreSQL is; it holds the password: never print it."""
        return self.store.engine.url

    @property
    def sslmode(self) -> str:
        """What libpq is asked for: by the URL, by the environment, or by its own default."""
        default = "require" if self.configuration.postgres.iam else os.environ.get("PGSSLMODE", "prefer")
        mode = self.url.query.get("sslmode", default)
        return mode if isinstance(mode, str) else mode[-1]

    @property
    def is_local(self) -> bool:
        """Whether PostgreSQL is reached without a network."""
        host = self.url.host or ""
        return host in _HERE or host.startswith("/")

    @property
    def endpoint(self) -> Endpoint:
        """What PostgreSQL's host name tells."""
        return endpoint_of(self.url.host or "")

    @property
    def dynamodb_is_aws(self) -> bool:
        """Whether DynamoDB is AWS's own, and no stand-in."""
        url = self.configuration.dynamodb.endpoint_url
        return url is None or ".amazonaws.com" in url

    def rows(self, query: str, /, **values: Any) -> list[Any]:
        """What PostgreSQL answers, row by row."""
        with self.store.engine.connect() as connection:
            return list(connection.execute(sa.text(query), values))

    def value(self, query: str, /, **values: Any) -> Any:
        """The one value that PostgreSQL answers."""
        ((value,),) = self.rows(query, **values)
        return value

    @property
    def dynamodb(self) -> Any:
        """A client of DynamoDB."""
        return self.aws("dynamodb")

    # -- what RDS says -------------------------------------------------------------------------

    @property
    def names_an_instance(self) -> bool:
        """Whether RDS can be asked: the host name or the configuration names something there."""
        return self.endpoint.identifier is not None or self.configuration.backfill.db_instance is not None

    def proxy(self) -> dict[str, Any] | None:
        """RDS's description of the proxy, where the host name is a proxy's own."""
        endpoint = self.endpoint
        if endpoint.kind is not Kind.PROXY or endpoint.identifier is None:
            return None
        answer = self.aws("rds", endpoint.region).describe_db_proxies(DBProxyName=endpoint.identifier)
        found: dict[str, Any] = answer["DBProxies"][0]
        return found

    def instance(self) -> dict[str, Any] | None:
        """RDS's description of the instance, or of the cluster's writer; None where no name leads there."""
        endpoint, rds = self.endpoint, self.aws("rds", self.endpoint.region)
        name = self.configuration.backfill.db_instance
        if name is None and endpoint.kind is Kind.INSTANCE:
            name = endpoint.identifier
        if name is None:
            cluster = self.cluster()
            members = () if cluster is None else cluster.get("DBClusterMembers", ())
            name = next((each["DBInstanceIdentifier"] for each in members if each["IsClusterWriter"]), None)
        if name is None:
            return None
        found: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        return found

    def cluster(self) -> dict[str, Any] | None:
        """RDS's description of the Aurora cluster, or None: it is none, or no name leads there."""
        endpoint, rds = self.endpoint, self.aws("rds", self.endpoint.region)
        name = endpoint.identifier if endpoint.kind in {Kind.WRITER, Kind.READERS} else None
        if name is None and (self.configuration.backfill.db_instance or endpoint.kind is Kind.INSTANCE):
            instance = self.configuration.backfill.db_instance or endpoint.identifier
            described = rds.describe_db_instances(DBInstanceIdentifier=instance)["DBInstances"][0]
            name = described.get("DBClusterIdentifier")
        if name is None and endpoint.kind is Kind.PROXY and endpoint.identifier is not None:
            targets = rds.describe_db_proxy_targets(DBProxyName=endpoint.identifier)["Targets"]
            name = next((each["TrackedClusterId"] for each in targets if each.get("TrackedClusterId")), None)
        if name is None:
            return None
        found: dict[str, Any] = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]
        return found
