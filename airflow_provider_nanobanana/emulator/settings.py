"""What can be set about an emulator, checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

_UNLIMITED = 1000.0  # the connection knows no "unlimited"; far above what one client reaches


def connection_json(api_url: str, settings: Settings, **extra: Any) -> dict[str, Any]:
    """Return the connection as Airflow's JSON form; ``allow_http`` is set where the host is not this machine."""
    fields: dict[str, Any] = {
        "submit_rate": settings.submit_rate or _UNLIMITED,
        "query_rate": settings.query_rate or _UNLIMITED,
    }
    if urlsplit(api_url).hostname not in ("127.0.0.1", "localhost", "::1"):
        fields["allow_http"] = True
    return {"conn_type": "nanobanana", "host": api_url, "password": settings.api_key, "extra": fields | extra}


PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
_NUMBERS = (
    "latency",
    "sigma",
    "time_scale",
    "submit_rate",
    "query_rate",
    "link_seconds",
    "lookup_delay",
    "lookup_spread",
    "commit_delay",
    "orphan_share",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user may turn; times in seconds, rates in requests per second.

    :param api_key: The only key that is accepted.
    :param latency: Median seconds from acceptance to completion; 0 completes at the first query.
    :param sigma: Spread of the lognormal latency; 0 makes every latency exactly the median.
    :param time_scale: Multiplies every latency.
    :param submit_rate: Submit allowance (``docs/toapis.md``: 5 for the default group); 0 lifts the limit.
    :param query_rate: Status query allowance (50 for the default group); 0 lifts the limit.
    :param credits: Credits of the account (200 are one USD); ``None`` is unlimited.
    :param seed: Makes latencies and ids repeatable.
    :param link_seconds: Life of a result link after completion (``docs/toapis.md``, "Result links": 24 hours).
    :param lookup_delay: Seconds after acceptance before a ``client_business_id`` resolves.
    :param lookup_spread: At most so many seconds more, another number for each image task.
    :param commit_delay: A submit is accepted at most so many seconds after it arrived, each after its own number of
        seconds and without asking whether the client still waits for the answer.
    :param orphan_share: Share (0 to 1) of the submits accepted although their client hung up during ``commit_delay``.
    :param ignore_client_ids: Client ids are swallowed: never echoed, never resolved.
    :param reject_client_ids: A submit that carries a client id is answered 400.
    :param result_format: Format of pictures whose request does not name one: PNG, JPEG or WEBP.
    :param result_suffix: Suffix of every result link, true or not; empty tells the truth.
    :raises ValueError: A value is out of range.
    """

    api_key: str = "sk-emulator"
    latency: float = 25.0
    sigma: float = 0.4
    time_scale: float = 1.0
    submit_rate: float = 5.0
    query_rate: float = 50.0
    credits: float | None = None
    seed: int | None = None
    link_seconds: float = 86_400
    lookup_delay: float = 0.0
    lookup_spread: float = 0.0
    commit_delay: float = 0.0
    orphan_share: float = 1.0
    ignore_client_ids: bool = False
    reject_client_ids: bool = False
    result_format: str = "PNG"
    result_suffix: str = ""

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            _check_number(name, getattr(self, name))
        if self.orphan_share > 1:
            raise ValueError(f"orphan_share must be at most 1, not {self.orphan_share!r}")
        if self.credits is not None:
            _check_number("credits", self.credits)
        if self.result_format not in PICTURE_FORMATS:
            raise ValueError(f"result_format must be one of {', '.join(PICTURE_FORMATS)}, not {self.result_format!r}")
        if not isinstance(self.seed, int | None):
            raise ValueError(f"seed must be a whole number, not {self.seed!r}")
        for name in ("ignore_client_ids", "reject_client_ids"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not isinstance(self.result_suffix, str):
            raise ValueError(f"result_suffix must be a text, not {self.result_suffix!r}")
        if not self.api_key:
            raise ValueError("api_key must not be empty")

    def changed(self, **changes: object) -> Settings:
        """Return a copy with some settings changed.

        :raises ValueError: A name is unknown or a value is out of range.
        """
        known = {field.name for field in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known are {sorted(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, object]:
        """Return the settings as plain JSON, without the key."""
        return {name: value for name, value in asdict(self).items() if name != "api_key"}


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
