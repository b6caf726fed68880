"""A local ToAPIs: develop DAGs and run CI without a key, without cost, with real pictures and with faults on request.

:class:`Emulator` runs in a test's process, ``python -m airflow_provider_nanobanana.emulator`` beside Airflow;
``docs/emulator.md`` has the options, the words in a prompt and the control routes, :mod:`.faults.kinds` the faults.

The API listens on one port, result files and uploads on the next, as in life: whoever sends the key to the second port
is seen in the request log. An image task is completed when its time has come, not by a timer.

It is an independent reading of the service (``docs/toapis.md``) and shares no code with the client. What the
documentation leaves open it decides strictly: a field in the place of the other spelling is ignored, a ratio the
model's page does not list is refused, a repeated ``client_business_id`` is charged again. It has never been compared
with the live service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_nanobanana.emulator.in_process import Emulator as Emulator

__all__ = ["Emulator"]


def __getattr__(name: str) -> Any:
    """Load the server only when it is asked for (PEP 562)."""
    if name == "Emulator":
        from airflow_provider_nanobanana.emulator.in_process import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
