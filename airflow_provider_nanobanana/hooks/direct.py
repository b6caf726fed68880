"""A submit without a task instance: from a ``@task`` function or a notebook."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable.attempt import Attempt
from airflow_provider_nanobanana.durable.journal import MemoryJournal
from airflow_provider_nanobanana.durable.record import NamedIdentity
from airflow_provider_nanobanana.hooks.pace import Pace
from airflow_provider_nanobanana.hooks.submission import Submission
from airflow_provider_nanobanana.toapis import errors

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageRequest, ImageTask


def submit_directly(hook: NanoBananaHook, request: ImageRequest, client_business_id: str | None) -> ImageTask:
    """Buy the image of a parsed request, or find it under the id of an earlier call; waits as long as the pace asks.

    :raises ToApisError: ``SubmissionUnknown`` says under which id to look for it with the next call.
    """
    client_id = client_business_id or f"nb-{uuid.uuid4().hex}"
    again = client_business_id is not None
    submission = Submission(
        hook,
        request,
        identity=NamedIdentity(scope=(client_id,), fingerprint=request.fingerprint()),
        attempt=Attempt(hook.clock(), max_tries=0, retry=again, tries_before_clear=0),
        rules=hook.rules(on_unknown_submission="fail"),
        journal=MemoryJournal(),
        pace=Pace.of(hook.settings),
        patient=True,
        vouched=again,
    )
    try:
        return submission.settle()
    except errors.SubmissionUnfindable as lost:
        how = (
            f"Call submit again with client_business_id={client_id!r} to look for it first."
            if hook.settings.client_ids
            else "This connection sends no client ids: look at the account's task list in the ToAPIs console."
        )
        raise errors.SubmissionUnknown(
            f"The submit left, and whether an image task exists could not be found out. {how}"
        ) from lost
