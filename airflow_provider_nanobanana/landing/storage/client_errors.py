"""What an exception means that a storage raised: the system's, or a client library's of an object store.

s3fs raises errors of Python's with botocore's as their cause, adlfs azure-core's, gcsfs some of its own; what they have
in common is the HTTP status and, of some, the store's code.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: HTTP 403 of these says that the credentials do not hold at the moment; the rights may be there.
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
        "TokenRefreshRequired", "AuthenticationFailed", "InvalidAuthenticationInfo", "RequestExpired",
    }
)  # fmt: skip
_NO_RIGHTS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def lacks_rights(error: BaseException | None) -> bool:
    """Whether a storage refused for good what this account wants, by what the system or a client library raised."""
    causes = list(_chain(error))
    if any(code_of(cause) in _CREDENTIALS for cause in causes):
        return False
    return any(
        isinstance(cause, PermissionError)
        or (isinstance(cause, OSError) and cause.errno in _NO_RIGHTS)
        or status_of(cause) == 403
        or str(cause).startswith("Forbidden: ")  # all that gcsfs says of a 403
        for cause in causes
    )


def is_there(error: BaseException) -> bool:
    """Whether a create was refused because the name is taken.

    s3fs tells not every 412 as ``FileExistsError``; Google's store tells an account that may create and not delete
    that it may not delete what is there.
    """
    return any(
        isinstance(cause, FileExistsError) or status_of(cause) == 412 or "storage.objects.delete access" in str(cause)
        for cause in _chain(error)
    )


def is_conflict(error: BaseException) -> bool:
    """Whether another create of the name was under way (409 of S3): the same request may be sent again."""
    return any(status_of(cause) == 409 for cause in _chain(error))


def lacks_bucket(error: BaseException) -> bool:
    """Whether a store misses the whole bucket, which is more than a file that is not there."""
    return any(code_of(cause) in ("NoSuchBucket", "ContainerNotFound") for cause in _chain(error))


def refuses_condition(error: BaseException) -> bool:
    """Whether the store or its library does not know the condition at all."""
    return any(
        isinstance(cause, NotImplementedError)
        or (isinstance(cause, TypeError) and "unexpected keyword" in str(cause))
        or status_of(cause) == 501
        or (isinstance(cause, OSError) and cause.errno == errno.ENOSYS)
        for cause in _chain(error)
    )


def refuses_range(error: BaseException) -> bool:
    """Whether a store has no bytes in the range that was asked for; gcsfs tells some as ``ValueError``."""
    return any(status_of(cause) == 416 or isinstance(cause, ValueError) for cause in _chain(error))


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a client library's exception names: botocore's, azure-core's, gcsfs', aiohttp's."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found: Any = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = next((getattr(error, name) for name in ("status_code", "code", "status") if hasattr(error, name)), None)
    return int(found) if isinstance(found, int) or (isinstance(found, str) and found.isdigit()) else None


def code_of(error: BaseException) -> str:
    """Return the store's own code that a client library's exception names, "" where it names none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return str(getattr(error, "error_code", None) or "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
