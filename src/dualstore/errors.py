"""Every error that dualstore itself raises, in one tree.

```
DualStoreError
├── ConfigurationError        the configuration, a model or a mapping is wrong; found before any I/O
│   ├── MappingError          a SQL model cannot hold the items of its DynamoDB table
│   ├── UnusableSource        what a backfill is to copy from is damaged, incomplete, or of another table
│   └── BackfillRefused       a backfill would be unsafe now; nothing has been started
├── RequestRejected           a store refuses an operation as DynamoDB would (code, message, reasons)
├── UnsupportedOperation      an operation that dualstore does not carry out, and what to use instead
├── Unavailable               retry later: nothing is known to be lost
│   ├── MirrorUnavailable     the mirror did not take or answer something (never reaches a caller)
│   │   ├── MirrorDirty       the mirror knows that what was asked for is in doubt
│   │   ├── MirrorRefused     the mirror answers, but its table does not take the item
│   │   │   └── MirrorUnreadable  it holds a row with a value that cannot be read
│   │   └── MirrorFenced      PostgreSQL is not the mirror at this epoch (any more, or yet)
│   ├── WritesPaused          writes wait while the authority moves, and have waited long enough
│   ├── AuthorityMoved        PostgreSQL is not the authority at this epoch (any more, or yet)
│   ├── StorageFull           PostgreSQL has no room left: nothing was written, and a person has to make some
│   └── OutcomeUnknown        the authority may or may not have carried out a write
├── RunHalted                 a backfill was ended before its end: by a person, or by a limit
├── IllegalTransition         a stage or dial was asked for that may not follow the present one
└── SchemaError               the `dualstore` schema is missing, older or newer than this version
```

What an *application* sees on a bound model, a repository or a client are PynamoDB's and botocore's own
exceptions: `client_error` turns a `RequestRejected` into the `ClientError` that botocore would have raised.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError


class DualStoreError(Exception):
    """Anything that dualstore raises on its own account."""


class ConfigurationError(DualStoreError):
    """The configuration, a model or a flag is wrong; the message says where and how to mend it."""


class MappingError(ConfigurationError):
    """A SQL model cannot hold the items of its DynamoDB table."""


class UnusableSource(ConfigurationError):  # noqa: N818 - named for what happened
    """What a backfill is to copy from is not what it has to be; reading it again does not help.

    It is damaged, incomplete, of another table, or too old. The message names the file and what to do.
    """


class BackfillRefused(ConfigurationError):  # noqa: N818 - named for what happened
    """A backfill would be unsafe now, so none was started; the message lists all reasons, and what to do."""


class RequestRejected(DualStoreError):  # noqa: N818 - a refusal is an answer of the store, not a fault
    """A store refuses an operation, as DynamoDB would.

    Args:
        code: DynamoDB's error code, such as `ValidationException`. Compare this, never the message:
            AWS rewords messages, region by region.
        message: what is wrong; holds no item values.
        item: the old item, for `ReturnValuesOnConditionCheckFailure=ALL_OLD`.
        reasons: DynamoDB's `CancellationReasons`, for `TransactionCanceledException`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        item: Mapping[str, Any] | None = None,
        reasons: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.item = item
        self.reasons = reasons


def invalid(message: str) -> RequestRejected:
    """A `ValidationException` with this message, the code DynamoDB uses for a malformed request."""
    return RequestRejected("ValidationException", message)


class UnsupportedOperation(DualStoreError):  # noqa: N818 - named for the caller's side of it
    """An operation that dualstore does not carry out; the message names what to use instead."""


class Unavailable(DualStoreError):  # noqa: N818 - read as "the store is unavailable"
    """Something could not be reached in time; trying again later is right."""


class MirrorUnavailable(Unavailable):
    """The mirror did not take a write or did not answer. Handled inside; never reaches a caller."""


class MirrorDirty(MirrorUnavailable):
    """A read covers a key whose mirrored state is in doubt: ask the authority."""


class MirrorRefused(MirrorUnavailable):
    """The SQL table does not take an item: a constraint of the team's own, or a schema that has drifted."""


class MirrorUnreadable(MirrorRefused):
    """A row holds a value that cannot be read at all, such as the moment `infinity`: SQL has written it."""


class MirrorFenced(MirrorUnavailable):
    """PostgreSQL is not the mirror at the epoch that a mirror write was decided under."""


class WritesPaused(Unavailable):
    """The authority of a table is moving to the other database: nothing was written; try again."""


class AuthorityMoved(Unavailable):
    """PostgreSQL is not the authority at the epoch that an operation was decided under: look again.

    Nothing was read or written.
    """


class StorageFull(Unavailable):
    """PostgreSQL has no room left on its disk: nothing was written, or will be until somebody makes room."""


class OutcomeUnknown(Unavailable):
    """The authority may or may not have carried out a write: its reply never came.

    Or it has, and what it has made of the item is not known any more: then the message says so.
    """


class RunHalted(DualStoreError):  # noqa: N818 - named for what happened
    """A backfill was ended before its end, by a person or by a limit; the message says how to go on."""


class IllegalTransition(DualStoreError):  # noqa: N818 - named for what was asked
    """A stage or a dial was asked for that may not follow the present one; the message says why.

    Args:
        message: why, and what to do.
        reason: why in one word, to be counted.
    """

    def __init__(self, message: str, *, reason: str = "refused") -> None:
        super().__init__(message)
        self.reason = reason


class SchemaError(DualStoreError):
    """The bookkeeping schema is missing, or not of this version; the message says which command mends it."""


_HTTP_STATUS = {
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
}


def client_error(operation: str, rejected: RequestRejected) -> ClientError:
    """The exception that botocore's client raises for this refusal.

    Args:
        operation: the DynamoDB API operation, such as `PutItem`.
        rejected: the refusal.

    Returns:
        A `botocore.exceptions.ClientError` with the response fields that botocore fills in: `Error`,
        `ResponseMetadata` and, where they apply, `Item` and `CancellationReasons`.
    """
    response: dict[str, Any] = {
        "Error": {"Code": rejected.code, "Message": rejected.message},
        "ResponseMetadata": {
            "HTTPStatusCode": _HTTP_STATUS.get(rejected.code, 400),
            "HTTPHeaders": {},
            "RetryAttempts": 0,
        },
    }
    if rejected.item is not None:
        response["Item"] = dict(rejected.item)
    if rejected.reasons is not None:
        response["CancellationReasons"] = [dict(reason) for reason in rejected.reasons]
    return ClientError(response, operation)
