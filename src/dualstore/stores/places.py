"""Folders of files to copy from: on S3, read on where a connection broke, or on this machine."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from posixpath import basename, dirname, join, normpath
from random import Random
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from dualstore.errors import Unavailable, UnusableSource

_S3_URL = re.compile(r"s3://(?P<bucket>[^/]+)/?(?P<key>.*)")
_TRIES = 8  # in a row without a byte: about half a minute
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 8.0
_HOPELESS = (NoCredentialsError, PartialCredentialsError)
_REMEDIES = {
    "NoSuchKey": "it is missing: copy it again, or take the export again",
    "404": "it is missing: copy it again, or take the export again",
    "NoSuchBucket": "there is no such bucket",
    "PreconditionFailed": "it has changed since it was first looked at: start a new run",
    "InvalidObjectState": "it is archived: restore it from Glacier first",
    "AccessDenied": "the role may not: it needs s3:GetObject, s3:ListBucket, and kms:Decrypt on the key",
}


class Body(Protocol):
    """The content of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, none at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True, slots=True)
class Stat:
    """A file as it stands.

    Attributes:
        size_bytes: its size.
        version: changes when its content does: the ETag on S3, the time of its last change elsewhere.
    """

    size_bytes: int
    version: str


class Folder(Protocol):
    """Where some files are; names are relative, with slashes."""

    @property
    def url(self) -> str:
        """As a person writes it, with a slash at the end."""
        ...

    def stats(self, names: Sequence[str]) -> Mapping[str, Stat]:
        """Those of some files that are there.

        Raises:
            UnusableSource: they may not be looked at.
            Unavailable: the place could not be reached.
        """
        ...

    def open(self, name: str, *, version: str | None = None) -> contextlib.AbstractContextManager[Body]:
        """The content of a file, from its beginning.

        Args:
            name: the file.
            version: only this one, as `stats` said.

        Raises:
            UnusableSource: it is missing, has changed, or may not be read; while it is being read, too.
            Unavailable: the place could not be reached; while it is being read, too.
        """
        ...


def folder_of(url: str, s3: Callable[[], Any]) -> Folder:
    """The folder of a URL `s3://bucket/prefix/`, or of a path on this machine.

    Args:
        url: of the folder.
        s3: makes the client of S3, where one is needed.
    """
    if (match := _S3_URL.fullmatch(url)) is not None:
        return S3Folder(s3(), match["bucket"], match["key"])
    return LocalFolder(Path(url))


def is_s3(url: str) -> bool:
    """Whether this is the URL of a bucket, folder or object on S3."""
    return _S3_URL.fullmatch(url) is not None


def parent_and_name(url: str) -> tuple[str, str]:
    """A file's folder, as for `folder_of`, and its name in it."""
    if (match := _S3_URL.fullmatch(url)) is not None:
        parent = dirname(match["key"])
        return f"s3://{match['bucket']}/{parent}", basename(match["key"])
    path = Path(url).absolute()
    return str(path.parent), path.name


def content(folder: Folder, name: str) -> bytes:
    """A small file, whole; the errors are those of `Folder.open`."""
    with folder.open(name) as body:
        return b"".join(iter(lambda: body.read(1 << 20), b""))


class LocalFolder:
    """A folder on this machine.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    @property
    def url(self) -> str:
        """See `Folder.url`."""
        return f"{self._path}/"

    def stats(self, names: Sequence[str]) -> Mapping[str, Stat]:
        """See `Folder.stats`."""
        return {name: stat for name in names if (stat := _stat(self._path / name)) is not None}

    @contextlib.contextmanager
    def open(self, name: str, *, version: str | None = None) -> Iterator[Body]:
        """See `Folder.open`."""
        path = self._path / name
        try:
            with path.open("rb") as file:
                stat = _stat(path)
                if version is not None and (stat is None or stat.version != version):
                    raise UnusableSource(f"{path}: {_REMEDIES['PreconditionFailed']}")
                yield file
        except FileNotFoundError:
            raise UnusableSource(f"{path}: {_REMEDIES['NoSuchKey']}") from None
        except OSError as error:
            raise UnusableSource(f"{path} cannot be read: {error.strerror}") from error


def _stat(path: Path) -> Stat | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stat(found.st_size, str(found.st_mtime_ns))


class S3Folder:
    """Objects of a bucket below a prefix. What a key encrypts is decrypted by S3, where the role may use it.

    Args:
        client: a boto3 client of S3.
        bucket: the bucket.
        prefix: the prefix, with or without a slash at its end.
        sleep: waits some seconds between tries.
    """

    def __init__(
        self, client: Any, bucket: str, prefix: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._sleep = sleep

    @property
    def url(self) -> str:
        """See `Folder.url`."""
        return f"s3://{join(self._bucket, self._prefix)}/"

    def stats(self, names: Sequence[str]) -> Mapping[str, Stat]:
        """See `Folder.stats`; lists the folders of these files, a thousand objects a request."""
        keys = {self._key(name): name for name in names}
        found: dict[str, Stat] = {}
        for parent in sorted({dirname(key) for key in keys}):
            with _explained(f"s3://{self._bucket}/{parent}/"):
                pages = self._client.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, Prefix=f"{parent}/" if parent else ""
                )
                for page in pages:
                    for each in page.get("Contents", ()):
                        if each["Key"] in keys:
                            found[keys[each["Key"]]] = Stat(each["Size"], each["ETag"].strip('"'))
        return found

    @contextlib.contextmanager
    def open(self, name: str, *, version: str | None = None) -> Iterator[Body]:
        """See `Folder.open`."""
        with contextlib.closing(
            _Object(self._client, self._bucket, self._key(name), version, self._sleep)
        ) as body:
            yield body

    def _key(self, name: str) -> str:
        return normpath(join(self._prefix, name))


class _Object:
    """The content of an object, read on where a connection broke as long as it is the same object."""

    def __init__(
        self, client: Any, bucket: str, key: str, version: str | None, sleep: Callable[[float], None]
    ) -> None:
        self._client = client
        self._request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if version is not None:
            self._request["IfMatch"] = f'"{version}"'
        self._url = f"s3://{bucket}/{key}"
        self._sleep = sleep
        self._body: Any = None
        self._at = 0
        self._length: int | None = None
        self._failures = 0

    def read(self, size: int = -1, /) -> bytes:
        while True:
            try:
                data = self._some(size)
            except (ClientError, BotoCoreError) as error:  # an end before the object's is one of these, too
                self._pause_after(error)
                continue
            self._failures = 0
            self._at += len(data)
            return data

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def _some(self, size: int) -> bytes:
        if self._at == self._length:
            return b""
        if self._body is None:
            where = {"Range": f"bytes={self._at}-"} if self._at else {}
            answer = self._client.get_object(**self._request, **where)
            self._request["IfMatch"] = answer["ETag"]
            self._length = self._at + answer["ContentLength"]
            self._body = answer["Body"]
        data: bytes = self._body.read(size if size > 0 else None)
        return data

    def _pause_after(self, error: Exception) -> None:
        self.close()
        if (refusal := _refusal(error)) is not None:
            raise UnusableSource(f"{self._url}: {refusal}") from error
        self._failures += 1
        if self._failures >= _TRIES:
            raise Unavailable(
                f"{self._url} cannot be read on at byte {self._at} ({_named(error)}); try again"
            ) from error
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**self._failures)
        self._sleep(longest * _CHANCE.uniform(0.5, 1))


_CHANCE = Random()  # noqa: S311 - spreads the tries of many workers


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if (refusal := _refusal(error)) is not None:
            raise UnusableSource(f"{url}: {refusal}") from error
        raise Unavailable(f"{url} cannot be listed ({_named(error)}); try again") from error


def _named(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


def _refusal(error: Exception) -> str | None:
    """Why it would fail again, or None where another try may succeed."""
    if isinstance(error, _HOPELESS):
        return str(error)
    if not isinstance(error, ClientError):
        return None
    code = _named(error)
    if code in _REMEDIES:
        return _REMEDIES[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    passing = (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or status == HTTPStatus.TOO_MANY_REQUESTS
        or code in {"RequestTimeout", "SlowDown", "RequestTimeTooSkewed", "ExpiredToken"}
    )
    return None if passing else f"S3 refuses to read it ({code})"
