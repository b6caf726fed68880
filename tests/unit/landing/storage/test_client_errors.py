"""What the exceptions of s3fs, gcsfs and adlfs mean; those of the probe's table are in ``test_exclusive.py``."""

from __future__ import annotations

import errno

import pytest

from airflow_provider_nanobanana.landing.storage import client_errors


class Azure(Exception):
    """As azure-core raises it."""

    def __init__(self, status_code: int, error_code: str) -> None:
        super().__init__(error_code)
        self.status_code = status_code
        self.error_code = error_code


class Google(Exception):
    """As gcsfs raises it; the code may be a text."""

    def __init__(self, code: int | str) -> None:
        super().__init__(str(code))
        self.code = code


class Amazon(Exception):
    """As botocore raises it."""

    def __init__(self, status: int | None, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Amazon(412, "PreconditionFailed"), 412, "PreconditionFailed"),
        (Amazon(None, "X"), None, "X"),
        (Azure(409, "BlobAlreadyExists"), 409, "BlobAlreadyExists"),
        (Google("503"), 503, ""),
        (Google(503), 503, ""),
        (Google("rateLimitExceeded"), None, ""),
        (OSError(errno.EINVAL, "x"), None, ""),
    ],
)
def test_status_and_code(error: Exception, status: int | None, code: str) -> None:
    assert (client_errors.status_of(error), client_errors.code_of(error)) == (status, code)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_the_cause_tells_what_the_error_does_not() -> None:
    assert client_errors.is_there(caused(OSError(errno.EINVAL, "x"), Amazon(412, "PreconditionFailed")))
    assert client_errors.is_conflict(caused(OSError(errno.EIO, "x"), Amazon(409, "ConditionalRequestConflict")))
    assert client_errors.lacks_bucket(caused(FileNotFoundError(), Amazon(404, "NoSuchBucket")))
    assert client_errors.refuses_range(caused(OSError(errno.EINVAL, "x"), Amazon(416, "InvalidRange")))
    assert client_errors.refuses_condition(caused(OSError(errno.EIO, "x"), Amazon(501, "NotImplemented")))


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (Azure(403, "AuthorizationPermissionMismatch"), True),
        (Azure(403, "AuthenticationFailed"), False),
        (caused(PermissionError("x"), Amazon(403, "AccessDenied")), True),
        (caused(PermissionError("x"), Amazon(400, "ExpiredToken")), False),
        (OSError(errno.EROFS, "x"), True),
        (OSError(errno.ENOSPC, "x"), False),
        (Google(401), False),
        (None, False),
    ],
)
def test_rights_are_told_from_credentials(error: Exception | None, lacking: bool) -> None:
    assert client_errors.lacks_rights(error) is lacking


@pytest.mark.parametrize("error", [FileNotFoundError(), TimeoutError(), Amazon(500, "InternalError"), Google(429)])
def test_what_tells_nothing(error: Exception) -> None:
    for question in (
        client_errors.is_there,
        client_errors.is_conflict,
        client_errors.lacks_bucket,
        client_errors.lacks_rights,
        client_errors.refuses_condition,
        client_errors.refuses_range,
    ):
        assert not question(error)
