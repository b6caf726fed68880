"""Landing: from a link, or inline bytes, to one verified image in the team's own storage."""

from __future__ import annotations

from airflow_provider_nanobanana.landing.image_file import decode_b64
from airflow_provider_nanobanana.landing.image_store import Landing, StoredImage, safe_name, stem_for
from airflow_provider_nanobanana.landing.reuse import Reusable, find_landed

__all__ = ["Landing", "Reusable", "StoredImage", "decode_b64", "find_landed", "safe_name", "stem_for"]
