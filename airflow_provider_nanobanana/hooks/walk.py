"""The walk over the generations of one submission: what of it already exists at the service."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_nanobanana.durable import MAX_GENERATIONS, Attempt, SubmissionIdentity, Verdict, decide
from airflow_provider_nanobanana.hooks.submission import look_up
from airflow_provider_nanobanana.toapis.errors import ImageTaskFailed

if TYPE_CHECKING:
    from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
    from airflow_provider_nanobanana.toapis.models import ImageTask

log = logging.getLogger(__name__)


def first_free_generation(
    hook: NanoBananaHook, identity: SubmissionIdentity, attempt: Attempt
) -> tuple[ImageTask | None, int]:
    """Return the image task to use and its generation, or None and the generation to submit.

    :raises ToApisError: when an earlier result forbids another submit, or when the service could not be asked.
    """
    for generation in range(MAX_GENERATIONS):
        found = look_up(hook, identity.client_business_id(generation), patient=attempt.retry)
        decision = decide(found, attempt, time.time())
        log.info("Generation %d: %s: %s.", generation, decision.verdict, decision.reason)
        if decision.verdict is not Verdict.NEXT_GENERATION:
            return found, generation
    raise ImageTaskFailed(
        f"{MAX_GENERATIONS} image tasks of this request failed, the last is {found.id if found else 'unknown'}; all "
        "were refunded. Look at the prompt and at the service before clearing the task."
    )
