"""DynamoDB itself, through boto3's low-level clients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import Any, Self

import boto3
import botocore.session
from botocore import exceptions, xform_name
from botocore.config import Config

from dualstore.errors import ConfigurationError
from dualstore.items import TableShape, table_shape_from_description
from dualstore.operations import OPERATIONS, Operation, Response
from dualstore.stages import Side
from dualstore.stores.dynamo_replies import read_items_fast
from dualstore.stores.dynamo_whole import refuse_half_answers


@dataclass(frozen=True)
class DynamoClients:
    """The clients of one DynamoDB; a context manager that closes them.

    Attributes:
        reads: retries what fails, as botocore does.
        writes: never retries: a repeated write needs a stamp of its own.
        make_streams: makes the client of its streams; without it there is none.
        make_resource: makes a boto3 resource of it; without it there is none.
    """

    reads: Any
    writes: Any
    make_streams: Callable[[], Any] | None = None
    make_resource: Callable[[], Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reads.close()
        self.writes.close()
        if "streams" in vars(self):
            self.streams.close()

    @cached_property
    def streams(self) -> Any:
        """The client of its streams, made when it is first asked for; most processes never do.

        Raises:
            ConfigurationError: these clients were made without it.
        """
        if self.make_streams is None:
            raise ConfigurationError(
                "these DynamoDB clients cannot read streams; make them with dualstore.stores.dynamo_clients"
            )
        return self.make_streams()


def dynamo_clients(
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    connect_timeout: timedelta = timedelta(seconds=1),
    read_timeout: timedelta = timedelta(seconds=5),
    max_pool_connections: int = 50,
    read_attempts: int = 3,
) -> DynamoClients:
    """Make the clients of a DynamoDB.

    Args:
        endpoint_url: of a stand-in; missing: AWS's own.
        region: missing: the environment's, as boto3 finds it. So it is with the credentials.
        access_key_id: of the account.
        secret_access_key: of the account.
        session_token: of temporary credentials.
        connect_timeout: for one connection.
        read_timeout: for one answer.
        max_pool_connections: kept open by each client; as many threads can call at a time without waiting.
        read_attempts: how often a read is sent at most.
    """
    core = botocore.session.get_session()
    session = boto3.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
        region_name=region,
        botocore_session=core,
    )
    shared = Config(
        connect_timeout=connect_timeout.total_seconds(),
        read_timeout=read_timeout.total_seconds(),
        max_pool_connections=max_pool_connections,
        tcp_keepalive=True,
        parameter_validation=False,  # 45 of 570 µs a call, and the server validates anyway
        user_agent=_user_agent(core),  # botocore would compose it anew, twice a call: 110 of 860 µs
    )

    def client(attempts: int, service: str = "dynamodb") -> Any:
        retries = Config(retries={"mode": "standard", "total_max_attempts": attempts})
        # AWS serves streams from a host of their own, a stand-in from its only one.
        own_host = service != "dynamodb" and (endpoint_url or "").rstrip("/").endswith(".amazonaws.com")
        url = None if own_host else endpoint_url
        made = session.client(service, endpoint_url=url, config=shared.merge(retries))
        read_items_fast(made)
        refuse_half_answers(made)
        return made

    return DynamoClients(
        reads=client(read_attempts),
        writes=client(1),
        make_streams=lambda: client(read_attempts, "dynamodbstreams"),
        make_resource=lambda: session.resource("dynamodb", endpoint_url=endpoint_url, config=shared),
    )


def _user_agent(session: botocore.session.Session) -> str:
    """What boto3 calls itself, and the application's name, where it is configured."""
    application = session.get_config_variable("user_agent_appid")
    own = session.user_agent().removesuffix(f" {session.user_agent_extra}")  # which a client adds by itself
    return f"{own} app/{application}" if application else own


class DynamoStore:
    """Passes operations on to DynamoDB as they are.

    Args:
        reads: a boto3 DynamoDB client; may retry.
        writes: a boto3 DynamoDB client that sends each request once (`total_max_attempts=1`).
    """

    side = Side.DYNAMODB

    def __init__(self, *, reads: Any, writes: Any) -> None:
        refuse_half_answers(reads)
        refuse_half_answers(writes)
        self._reads = reads
        self._call: Mapping[type[Operation], Any] = {
            operation: getattr(reads if operation.reads else writes, xform_name(name))
            for name, operation in OPERATIONS.items()
        }

    def __repr__(self) -> str:
        return f"<DynamoStore {self._reads.meta.endpoint_url}>"

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation (see `Store.execute`)."""
        response: Response = self._call[type(operation)](**operation.request)
        return response

    def describe(self, table: str) -> TableShape:
        """The shape of a table.

        Args:
            table: its physical name.

        Raises:
            botocore.exceptions.ClientError: there is no such table, or it may not be described.
            ConfigurationError: an index that dualstore does not read.
        """
        return table_shape_from_description(self._reads.describe_table(TableName=table))

    def arn(self, table: str) -> str | None:
        """The ARN of a table, if DynamoDB tells one; raises as `describe` does."""
        arn: str | None = self._reads.describe_table(TableName=table)["Table"].get("TableArn")
        return arn


class Outcome(Enum):
    """What an exception of a DynamoDB client says of the write that it ended."""

    REFUSED = "refused"
    """It was not carried out, and would be refused again: a condition, a limit, a permission."""
    RETRY = "retry"
    """It was not carried out, and may be if it is sent again: throttling, contention, no connection."""
    UNKNOWN = "unknown"
    """It may have been carried out: no answer, half an answer, or an internal error."""


def outcome(error: BaseException) -> Outcome:
    """Tell whether a write that ended in an exception was carried out.

    What is not known for certain is unknown.

    Args:
        error: what a client raised that does not retry.
    """
    if isinstance(error, exceptions.ClientError):
        return _outcome_of_answer(error.response)
    if isinstance(error, _NEVER_SENT):
        return Outcome.RETRY
    return Outcome.REFUSED if isinstance(error, _NOT_SENDABLE) else Outcome.UNKNOWN


# Raised before a connection stands, so before a byte of the request was sent.
_NEVER_SENT = (
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ProxyConnectionError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
)

# Raised by the client itself, which would do it again.
_NOT_SENDABLE = (
    exceptions.ParamValidationError,
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.NoRegionError,
    exceptions.UnknownServiceError,
    exceptions.InvalidRegionError,
)

# AWS, "Error handling with DynamoDB": refused before anything was written, and worth sending again.
_RETRIABLE_CODES = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_RETRIABLE_REASONS = frozenset(
    {"None", "TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError"}
)
_UNDECIDED_CODES = frozenset({"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"})
_SERVER_ERROR = 500


def _outcome_of_answer(response: Mapping[str, Any]) -> Outcome:
    code = response.get("Error", {}).get("Code")
    if code in _RETRIABLE_CODES:
        return Outcome.RETRY
    if code == "TransactionCanceledException":
        reasons = {reason.get("Code") for reason in response.get("CancellationReasons", ())}
        return Outcome.RETRY if reasons and reasons <= _RETRIABLE_REASONS else Outcome.REFUSED
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
    undecided = status >= _SERVER_ERROR or code in _UNDECIDED_CODES
    return Outcome.UNKNOWN if undecided else Outcome.REFUSED
