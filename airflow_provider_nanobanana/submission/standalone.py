"""A submit without a task instance: from a ``@task`` function or a notebook."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable.attempt import TaskAttempt
from airflow_provider_nanobanana.durable.record import CallerIdentity
from airflow_provider_nanobanana.durable.record_store import SingleRecordStore
from airflow_provider_nanobanana.durable.state_store import InMemoryStateStore
from airflow_provider_nanobanana.submission.client_ids import policy_for
from airflow_provider_nanobanana.submission.rate_limiter import SubmitRateLimiter
from airflow_provider_nanobanana.submission.workflow import Submission
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask
    from airflow_provider_nanobanana.toapis.session import ToApisSession


def submit_standalone(
    session: ToApisSession, request: ImageRequest, client_business_id: str | None, submitted_before: datetime | None
) -> ImageTask:
    """Buy the image of a parsed request, or find it under the id of an earlier call; may wait for the account's rate.

    :raises ToApisError: ``SubmissionUnknown`` says under which id to look for it with the next call.
    """
    _check(session, client_business_id, submitted_before)
    client_id = client_business_id or f"nb-{uuid.uuid4().hex}"
    again = client_business_id is not None
    # Whoever names no earlier call says that none is under way; what one bought shows under its id all the same.
    left_before = -math.inf if submitted_before is None else min(session.clock(), submitted_before.timestamp())
    submission = Submission(
        session,
        request,
        identity=CallerIdentity(scope=(client_id,), fingerprint=request.fingerprint()),
        attempt=TaskAttempt(left_before, max_tries=0, retry=again, tries_before_clear=0),
        policy=policy_for(session, on_unknown_submission="fail" if submitted_before is None else "resubmit"),
        record_store=SingleRecordStore(InMemoryStateStore()),
        rate_limiter=SubmitRateLimiter.of(session.settings),
        wait_for_slot=True,
    )
    try:
        return submission.run()
    except errors.ResultExpired as expired:
        raise expired.reworded(
            f"Image task {expired.image_task_id} of client_business_id {client_id!r} is paid and its link has expired. "
            "Nothing was sent now. Call submit with another client_business_id, or without one, to buy it again."
        ) from expired
    except errors.SubmissionUnfindable as lost:
        how = (
            f"Call submit again with client_business_id={client_id!r} to look for it first."
            if session.settings.client_ids
            else "This connection sends no client ids: look at the account's task list in the ToAPIs console."
        )
        raise errors.SubmissionUnknown(
            f"The submit left, and whether an image task exists could not be found out. {how}"
        ) from lost


def _check(session: ToApisSession, client_business_id: str | None, submitted_before: datetime | None) -> None:
    """Refuse what could not be kept; nothing was sent."""
    if client_business_id is not None and not session.settings.client_ids:
        raise errors.ConfigurationError(
            "This connection sends no client ids (client_ids: false), so client_business_id cannot be used. Nothing "
            "was sent and nothing charged."
        )
    if submitted_before is None:
        return
    if client_business_id is None or submitted_before.tzinfo is None:
        raise errors.InvalidRequest(
            "submitted_before is a moment with a time zone and goes with the client_business_id of the earlier call. "
            "Nothing was sent and nothing charged."
        )
