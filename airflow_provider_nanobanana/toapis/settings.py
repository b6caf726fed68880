"""ToApisSettings: what is known of one account at the gateway, checked before anything is sent."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from airflow_provider_nanobanana.toapis import catalogue

#: No image costs as much; what is far above is a slip of the pen.
_MOST_USD: Final = 1000
#: Characters of a namespace.
MAX_NAMESPACE: Final = 100


class ToApisSettings(BaseModel):
    """The fields of a ``nanobanana`` connection, with their defaults; unknown extras are ignored.

    :param base_url: Without ``/v1`` and trailing slash.
    :param timeout: Seconds for one HTTP call.
    :param submit_rate: Submits per second that the account allows; all processes of one machine keep it together.
    :param query_rate: Status calls per second that the account allows.
    :param prices: USD per image by resolution (for every model), or by model and resolution, where the account's differ
        from the list or none is known: the generate operator estimates with them, and ``max_cost_usd`` counts them
        until the service says what was billed.
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
    def _from_text(cls, prices: Any) -> Any:
        # In the URI form of a connection every extra is a text.
        try:
            return json.loads(prices) if isinstance(prices, str) else prices
        except ValueError:
            raise ValueError('is no JSON; use a form like {"1K": 0.025}') from None

    @field_validator("prices")
    @classmethod
    def _real_prices(cls, prices: dict[str, float | dict[str, float]]) -> dict[str, float | dict[str, float]]:
        groups = (price.values() if isinstance(price, dict) else (price,) for price in prices.values())
        if not all(0 <= price <= _MOST_USD for group in groups for price in group):
            raise ValueError(f'holds a price that is none (0 to {_MOST_USD} USD); use a form like {{"1K": 0.025}}')
        return prices
