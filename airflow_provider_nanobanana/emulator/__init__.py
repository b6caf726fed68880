"""A local ToAPIs: develop DAGs and run CI without a key, without cost, with real pictures and with faults on request.

Run it beside Airflow::

    python -m airflow_provider_nanobanana.emulator --port 8787 --latency 5

It prints both addresses and the value for ``AIRFLOW_CONN_NANOBANANA_DEFAULT``. The API listens on one port, result
pictures and uploads on the next, as in life: whoever sends the key to the second port is seen in the request log.
It answers ``POST`` and ``GET /v1/images/generations``, ``/v1/models``, ``/v1/balance``, ``/v1/user/balance`` and
``/v1/uploads/images`` as the public pages document them, with the account's rate limits, list prices and a lognormal
latency (median 25 s). An image task is completed when its time has come, not by a timer. Pictures have the pixel size
that was asked for and say on their face what they are.

**In a test**, in the same process, on free ports::

    from airflow_provider_nanobanana.emulator import Emulator

    with Emulator(latency=0) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_NANOBANANA_DEFAULT", emulator.connection_json())
        emulator.fault(on="submit", kind="drop", times=1, committed=True)
        ...
        assert emulator.ledger()["count"] == 1  # the bank saw one paid image task

**The books.** The ledger holds every accepted image task: prompt, model, price, refund, times, and which
``client_business_id`` was charged more than once (the emulator, like the service as far as is known, never
deduplicates). The request log holds port, path, host, whether a key came along, and the status sent.

**Faults.** A rule names a point (submit, status, result, models, balance, upload), a kind, and optionally ``times``
(default: always), ``skip`` (let so many pass first) and ``match`` (substring of the prompt). Kinds and their parameters
are in :mod:`.faultkinds`. In a prompt, words do the same by hand: ``[[fail]]``, ``[[fail=CODE]]``, ``[[refuse]]`` (at
submit), ``[[refuse-late]]``, ``[[slow=60]]``, ``[[stuck]]``, ``[[lost]]`` (paid, but the answer never arrives),
``[[busy]]``, ``[[no-credits]]``, ``[[no-url]]``, ``[[bad-image]]``, ``[[wrong-size]]``, ``[[expired]]``, ``[[jpeg]]``,
``[[webp]]``.

**Control over HTTP**, on the API port, without a key: ``GET /emulator/ledger``, ``requests``, ``stats``; ``GET``,
``POST`` (a list that replaces) and ``DELETE /emulator/faults``; ``GET`` and ``POST /emulator/settings``;
``POST /emulator/complete`` (finish what runs) and ``/emulator/reset``.

It is an independent reading of the documentation and shares no code with the client. What the documentation leaves
open it decides strictly: a field in the place of the other spelling is ignored, a ratio the model's page does not list
is refused. It has never been compared with the live service.
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
