"""The operators, under the path that DAGs import them from."""

from __future__ import annotations

from airflow_provider_nanobanana.operators.download import NanoBananaDownloadOperator
from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
from airflow_provider_nanobanana.operators.submit import NanoBananaSubmitOperator

__all__ = ["NanoBananaDownloadOperator", "NanoBananaGenerateOperator", "NanoBananaSubmitOperator"]
