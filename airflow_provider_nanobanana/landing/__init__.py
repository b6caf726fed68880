"""Landing: from a link, or inline bytes, to one verified image in the team's own storage."""

from __future__ import annotations

from airflow_provider_nanobanana.landing.image_file import decode_b64
from airflow_provider_nanobanana.landing.image_store import ImageStore, StoredImage, safe_name, stem_for
from airflow_provider_nanobanana.landing.reuse import find_existing

__all__ = ["ImageStore", "StoredImage", "decode_b64", "find_existing", "safe_name", "stem_for"]
