"""Landing: from a link, or inline bytes, to one verified image in the team's own storage."""

from __future__ import annotations

from airflow_provider_nanobanana.landing.inline_image import decode_b64
from airflow_provider_nanobanana.landing.landing import Landing, StoredImage
from airflow_provider_nanobanana.landing.naming import safe_name, stem_for
from airflow_provider_nanobanana.landing.reuse import Reusable, find_landed

__all__ = ["Landing", "Reusable", "StoredImage", "decode_b64", "find_landed", "safe_name", "stem_for"]
