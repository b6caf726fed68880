"""``Started``: what a test of a shape starts; all of it ends with the test, its logs are shown where that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_provider_nanobanana.emulator import Emulator
from dev.stack.airflow_stack import AirflowStack
from dev.stack.processes import Processes

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "example_dags"
DAGS = REPO / "tests" / "system" / "dags"
FAB = {
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "AIRFLOW__FAB__AUTH_RATE_LIMITED": "False",
}


class Started(contextlib.ExitStack):
    """The processes of one test."""

    def __init__(self) -> None:
        super().__init__()
        self.processes = Processes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            return bool(super().__exit__(kind, error, trace))
        finally:
            self.processes.stop()

    def stack(
        self,
        home: Path,
        emulator: Emulator,
        env: Mapping[str, str] | None = None,
        *,
        path: str = "",
        dags: Sequence[Path] = (EXAMPLES,),
        users: Mapping[str, str] | None = None,
    ) -> AirflowStack:
        """Describe an Airflow; its :meth:`~AirflowStack.start` starts it.

        :param path: Path below which it is served.
        """
        connection = {"AIRFLOW_CONN_NANOBANANA_DEFAULT": emulator.connection_json()}
        stack = AirflowStack(
            home, dags, env={**connection, **(env or {})}, users=users, path=path, processes=self.processes
        )
        self.callback(stack.api.close)
        return stack

    def tails(self) -> list[tuple[str, str]]:
        """Return the end of each process's log, with its name."""
        return [(f"log of {name}", self.processes.tail(name, 30)) for name in self.processes.names()]
