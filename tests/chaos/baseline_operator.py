"""BaselineSubmitOperator: what most teams write first. POST, keep the id in XCom, let Airflow retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class BaselineSubmitOperator(BaseOperator):
    """Buy one image and return its id; every error is left to the next retry."""

    template_fields: Sequence[str] = ("prompt",)

    def __init__(self, *, prompt: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt

    def execute(self, context: Context) -> str:
        """Submit."""
        import httpx

        connection = BaseHook.get_connection("nanobanana_default")
        response = httpx.post(
            f"{connection.host}/v1/images/generations",
            json={"model": "nano_banana_2", "prompt": self.prompt, "size": "1:1"},
            headers={"Authorization": f"Bearer {connection.password}"},
            timeout=30,
        )
        return str(response.raise_for_status().json()["id"])
