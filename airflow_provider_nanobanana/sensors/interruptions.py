"""The errors of a wait that something else than its image tasks has ended: all go on, and a later look is free."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_nanobanana.toapis.errors import ToApisError, TransientFailure
from airflow_provider_nanobanana.toapis.verdict import listed_ids


def key_refused(error: ToApisError, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a key that is shown nothing; a person must mend the connection."""
    words = f"{error.message} {_paid(image_task_ids)} Mend the connection and clear this sensor."
    return error.reworded(words, charged="yes")


def triggerer_refused(conn_id: str, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a triggerer that is refused what this worker is shown."""
    return TransientFailure(
        "The triggerer was refused by the gateway, this worker is not: do both see the same connection "
        f"{conn_id!r}? {_paid(image_task_ids)} A retry waits on for free.",
        charged="yes",
    )


def trigger_crashed(crash: Exception, conn_id: str, image_task_ids: Sequence[str]) -> ToApisError:
    """Return the error of a trigger that ended without an event."""
    return TransientFailure(
        f"The trigger failed ({crash}; the log above says why: does the triggerer see the connection {conn_id!r}?). "
        f"{_paid(image_task_ids)} A retry waits on for free.",
        charged="yes",
    )


def _paid(image_task_ids: Sequence[str]) -> str:
    return f"The image tasks go on and stay paid: {listed_ids(image_task_ids)}. Do not clear the submit tasks."
