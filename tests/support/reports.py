"""Samples of how requests of a batch end, and the report and the error that they amount to."""

from __future__ import annotations

from airflow_provider_nanobanana.batch.costs import Cost, totals
from airflow_provider_nanobanana.batch.outcome import FailedItem, Outcome, StoredItem
from airflow_provider_nanobanana.batch.report import BatchReport
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.failure_codes import CONTENT_REFUSED
from tests.support.batch import failed, item, landed

URI = "s3://bucket/manifest-x.json"
REFUSED = CONTENT_REFUSED.code
REFUSAL = failed(1, REFUSED)
REMOTE = failed(2)
LATE = failed(3, "timeout", "timeout", cost=Cost(0.025, listed=True))
OVER = FailedItem.over_budget(item(4), 0.5)
LOST = failed(5, "expired", cost=Cost(0.025))
UNSEEN = failed(6, "not_seen", "timeout", cost=Cost(0.025, listed=True))
OK = landed(0)


def report(*outcomes: Outcome) -> BatchReport:
    further = [outcome for outcome in outcomes if isinstance(outcome, StoredItem) and outcome.extra]
    spent = {outcome.item.key: outcome.spent for outcome in outcomes if outcome not in further}
    return BatchReport(outcomes, totals(spent.values()))


def verdict_of(*outcomes: Outcome, partial: bool = False) -> errors.ToApisError | None:
    return report(*outcomes).error(allow_partial=partial, manifest_uri=URI)


def error_of(*outcomes: Outcome, partial: bool = False) -> errors.ToApisError:
    error = verdict_of(*outcomes, partial=partial)
    assert error is not None
    return error
