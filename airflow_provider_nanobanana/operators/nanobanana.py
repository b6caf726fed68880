"""The operators, under the path that DAGs import them from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.operators.download import NanoBananaDownloadOperator
from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
from airflow_provider_nanobanana.operators.submit import NanoBananaSubmitOperator

if TYPE_CHECKING:
    from airflow_provider_nanobanana.operators.review import NanoBananaReviewOperator

__all__ = [
    "NanoBananaDownloadOperator",
    "NanoBananaGenerateOperator",
    "NanoBananaReviewOperator",
    "NanoBananaSubmitOperator",
]


def __getattr__(name: str) -> Any:
    """Import the review operator for those who ask for it: its base class warns of Airflow's own on 3.1."""
    if name == "NanoBananaReviewOperator":
        from airflow_provider_nanobanana.operators.review import NanoBananaReviewOperator

        return NanoBananaReviewOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
