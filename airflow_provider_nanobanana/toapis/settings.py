"""ToApisSettings: what is known of one account at the gateway, checked before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from airflow_provider_nanobanana.toapis import catalogue
from airflow_provider_nanobanana.toapis.model_row import MOST_USD, ModelRow

#: Characters of a namespace.
MAX_NAMESPACE: Final = 100


_ROW_FORM: Final = '{"my-model": {"dialect": "reference"}}'


class ToApisSettings(BaseModel):
    """The fields of a ``nanobanana`` connection, with their defaults; unknown extras are ignored.

    :param base_url: Without ``/v1`` and trailing slash.
    :param timeout: Seconds for one HTTP call.
    :param submit_rate: Submits per second that the account allows; all processes of one machine keep it together.
    :param query_rate: Status calls per second that the account allows.
    :param prices: USD per image by resolution (for every model), or by model and resolution, where the account's differ
        from the list or none is known: the generate operator estimates with them, and ``max_cost_usd`` counts them
        until the service says what was billed.
    :param models: Rows of models that are not known here, or changes of those that are, by model id
        (:class:`~.model_row.ModelRow`).
    :param client_ids: Whether submits carry a ``client_business_id``.
    :param namespace: The first part of every derived client id, which tells Airflow installations apart that share an
        account and have DAGs of one name; printable characters. Where it is empty it is no part of them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_url: str
    api_key: SecretStr
    model: str = Field(default=catalogue.DEFAULT_MODEL, min_length=1)
    timeout: float = Field(default=30.0, gt=0, le=600)
    submit_rate: float = Field(default=5.0, gt=0, le=10_000)
    query_rate: float = Field(default=50.0, gt=0, le=10_000)
    prices: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    models: dict[str, ModelRow] = Field(default_factory=dict)
    client_ids: bool = True
    namespace: str = Field(default="", max_length=MAX_NAMESPACE)
    allow_http: bool = Field(default=False, exclude=True)

    @field_validator("timeout", "submit_rate", "query_rate", mode="before")
    @classmethod
    def _no_switch(cls, number: Any) -> Any:
        if isinstance(number, bool):
            raise ValueError(f"is a number, not {str(number).lower()}")
        return number

    @field_validator("namespace")
    @classmethod
    def _printable(cls, namespace: str) -> str:
        if not namespace.isprintable():
            raise ValueError("holds control characters; use a short text such as 'staging'")
        return namespace.strip()

    @field_validator("prices", mode="before")
    @classmethod
    def _prices_from_text(cls, prices: Any) -> Any:
        return _from_text(prices, '{"1K": 0.025}')

    @field_validator("models", mode="before")
    @classmethod
    def _rows(cls, models: Any) -> Any:
        given = _from_text(models, _ROW_FORM)
        if not isinstance(given, Mapping):
            raise ValueError(f"is no mapping of rows by model id; use a form like {_ROW_FORM}")
        return catalogue.merged_rows(given)

    @field_validator("prices")
    @classmethod
    def _real_prices(cls, prices: dict[str, float | dict[str, float]]) -> dict[str, float | dict[str, float]]:
        groups = (price.values() if isinstance(price, dict) else (price,) for price in prices.values())
        if not all(0 <= price <= MOST_USD for group in groups for price in group):
            raise ValueError(f'holds a price that is none (0 to {MOST_USD} USD); use a form like {{"1K": 0.025}}')
        return prices


def _from_text(value: Any, form: str) -> Any:
    """Return the value of an extra that is JSON; in the URI form of a connection every extra is a text.

    :param form: What it looks like.
    """
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ValueError(f"is no JSON; use a form like {form}") from None
