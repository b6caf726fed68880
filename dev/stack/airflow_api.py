"""A small client of Airflow's REST API: trigger, watch, read what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx

T = TypeVar("T")
Record = dict[str, Any]
Watch = Callable[[list[Record]], None]
FINISHED = frozenset({"success", "failed"})
#: For how long a change is tried again that SQLite rolls back: on a busy machine that happens many times in a row.
_LOCKED_SECONDS = 240.0


class ApiError(RuntimeError):
    """Airflow's API refused a call (``status`` is its HTTP status) or could not be reached (``None``)."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """The REST API of one Airflow, as a user that logs in on the first call that needs it.

    :param url: Base URL, for example ``http://127.0.0.1:8080``.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        # Longer than SQLite may be locked (60 s, see the stack's environment), after which a call may be repeated.
        self._http = httpx.Client(base_url=url, timeout=90, trust_env=False)
        self._login = {"username": user, "password": password}

    def close(self) -> None:
        """Drop the connections; the next call would fail."""
        self._http.close()

    def health(self) -> Record:
        """Give the health report: a status for each of scheduler, dag_processor, triggerer and metadatabase."""
        return self._send("GET", "/api/v2/monitor/health")

    def warm_up(self) -> None:
        """Make the api-server build what its first task needs: it takes 5 s, in which a task's first call times out."""
        self._send("GET", "/execution/health", timeout=120)

    def get(self, path: str, **params: Any) -> Record:
        """Read any path below ``/api/v2``."""
        return self._call("GET", path, params=params)

    def patch(self, path: str, body: Mapping[str, Any]) -> Record:
        """Change what is at any path below ``/api/v2``."""
        return self._call("PATCH", path, json=dict(body))

    # --- DAGs and runs ----------------------------------------------------------------------------------------

    def wait_for_dag(self, dag_id: str, timeout: float = 90) -> None:
        """Wait until a DAG has been parsed and stored.

        :raises TimeoutError: With the import errors that Airflow reports.
        """
        deadline = time.monotonic() + timeout
        while not self._has_dag(dag_id):
            if time.monotonic() > deadline:
                raise TimeoutError(f"There is no DAG {dag_id} after {timeout:.0f} s. {self.import_errors()}")
            time.sleep(0.5)

    def import_errors(self) -> dict[str, str]:
        """Give the DAG files that could not be imported, with the traceback of each."""
        return {entry["filename"]: entry["stack_trace"] for entry in self._pages("/importErrors", "import_errors")}

    def unpause(self, dag_id: str) -> None:
        """Let a DAG start runs when its schedule or an asset asks for one."""
        path = f"/dags/{quote(dag_id)}"
        self.wait_until(lambda: self._try("PATCH", path, {"is_paused": False}), f"unpausing {dag_id}", _LOCKED_SECONDS)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run now; the DAG is unpaused first, so one with a schedule may also start the run that is due.

        :param run_id: Id to give to the run; Airflow's choice when None.
        :return: The id of the run.
        """
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})} | ({"dag_run_id": run_id} if run_id else {})
        path = f"/dags/{quote(dag_id)}/dagRuns"
        run = self.wait_until(lambda: self._try("POST", path, body), f"a run of {dag_id}", _LOCKED_SECONDS)
        return str(run["dag_run_id"])

    def backfill(
        self, dag_id: str, first: str, last: str, conf: Mapping[str, Any] | None = None, *, max_active_runs: int = 10
    ) -> list[str]:
        """Start a run for every date of the schedule, as ``airflow backfill create`` does; the DAG is unpaused then.

        One that is under way for this DAG is cancelled.

        :param first: ISO date; ``last`` too, and it is included.
        :return: The ids of the runs of all backfills of these dates.
        """
        body: Record = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
        # What an attempt left that met a locked SQLite counts as failed.
        body |= {"dag_run_conf": conf, "max_active_runs": max_active_runs, "reprocess_behavior": "failed"}
        self.wait_until(lambda: self._try_backfill(body), f"the backfill of {dag_id}", _LOCKED_SECONDS)
        self.unpause(dag_id)
        found = [run for run in self.runs(dag_id) if run["run_type"] == "backfill"]
        return sorted(run["dag_run_id"] for run in found if first <= run["logical_date"][:10] <= last)

    def runs(self, dag_id: str) -> list[Record]:
        """List the runs of a DAG, each with ``dag_run_id``, ``run_type``, ``logical_date`` and ``state``."""
        return list(self._pages(f"/dags/{quote(dag_id)}/dagRuns", "dag_runs"))

    def run(self, dag_id: str, run_id: str) -> Record:
        """Give one run, with ``state``, ``start_date`` and ``end_date``."""
        return self._call("GET", _run(dag_id, run_id))

    def wait_for_run(
        self, dag_id: str, run_id: str, *, timeout: float = 300, watch: Watch = lambda instances: None
    ) -> str:
        """Wait until a run has ended.

        :param watch: Called about once a second with the task instances.
        :return: ``success`` or ``failed``.
        """
        return self.wait_until(
            lambda: self._ended(dag_id, run_id, watch), f"the end of run {run_id} of {dag_id}", timeout
        )

    def set_run_state(self, dag_id: str, run_id: str, state: Literal["success", "failed", "queued"]) -> None:
        """Mark a run, as the button in the interface does."""
        self._call("PATCH", _run(dag_id, run_id), json={"state": state})

    # --- task instances ---------------------------------------------------------------------------------------

    def instances(self, dag_id: str, run_id: str, task_id: str | None = None) -> list[Record]:
        """List task instances, one per map index, each with ``state``, ``try_number``, ``start_date``, ``trigger``."""
        found = self._pages(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")
        return [instance for instance in found if task_id in (None, instance["task_id"])]

    def instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Record:
        """Give one task instance."""
        return self._call("GET", _instance(dag_id, run_id, task_id, map_index))

    def wait_for_state(
        self, dag_id: str, run_id: str, task_id: str, states: set[str], *, map_index: int = -1, timeout: float = 120
    ) -> Record:
        """Wait until a task instance is in one of these states (``deferred``, ``running``, ``up_for_retry``...)."""

        def reached() -> Record | None:
            instance = self.instance(dag_id, run_id, task_id, map_index)
            return instance if instance["state"] in states else None

        return self.wait_until(reached, f"{task_id} in {sorted(states)}", timeout)

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Record:
        """Give the rendered template fields as the interface shows them."""
        return dict(self.instance(dag_id, run_id, task_id, map_index)["rendered_fields"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Give one XCom value."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self._call("GET", path, params={"map_index": map_index, "deserialize": False})["value"]

    def log_entries(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1
    ) -> list[Any]:
        """Give the log of one try, the trigger's part included, as Airflow structures it."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}"
        answer = self._call("GET", path, params={"map_index": map_index, "full_content": True})
        return list(answer["content"])

    def log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Give the log of one try as text: one line per event with all its fields."""
        entries = self.log_entries(dag_id, run_id, task_id, map_index, try_number)
        return "\n".join(_log_line(entry) for entry in entries)

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str], **options: Any) -> None:
        """Clear tasks of a run, failed or not, so that they run again.

        :param options: Further fields of the request, such as ``only_failed``, ``include_downstream``.
        """
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(task_ids), "only_failed": False, **options}
        self._call("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str = "failed", map_index: int = -1) -> None:
        """Set the state of a task instance, as the button in the interface does."""
        self._call("PATCH", _instance(dag_id, run_id, task_id, map_index), json={"new_state": state})

    # --- what people are asked --------------------------------------------------------------------------------

    def questions(self, dag_id: str, run_id: str) -> list[Record]:
        """List what a run asks people, answered or not, each with ``task_instance``, ``body``, ``params``..."""
        return list(self.get(f"{_run(dag_id, run_id)}/hitlDetails")["hitl_details"])

    def answer(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        option: str,
        *,
        fields: Mapping[str, Any] | None = None,
        map_index: int = -1,
    ) -> Record:
        """Answer what a task asks, as the form in the interface does.

        :raises ApiError: With the status 409 where it was answered before.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}/{map_index}/hitlDetails"
        return self._call("PATCH", path, json={"chosen_options": [option], "params_input": dict(fields or {})})

    # --- calls ------------------------------------------------------------------------------------------------

    def wait_until(self, look: Callable[[], T | None], what: str, timeout: float) -> T:
        """Call ``look`` once a second until it gives something.

        :raises TimeoutError: Nothing after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if (found := look()) is not None:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {timeout:.0f} s for {what}")
            time.sleep(1.0)

    def _try(self, method: str, path: str, body: Record) -> Record | None:
        """Send a change; None where it was rolled back because SQLite was locked, as it is on a busy machine."""
        try:
            return self._call(method, path, json=body)
        except ApiError as error:
            if error.status == httpx.codes.INTERNAL_SERVER_ERROR and "Database error" in str(error):
                return None
            raise

    def _try_backfill(self, body: Record) -> Record | None:
        """Create a backfill; None where SQLite was locked, as it often is."""
        try:
            # Airflow before 3.3 keeps one that it failed to make runs for, and allows a DAG one at a time.
            for backfill in self._pages("/backfills", "backfills", dag_id=body["dag_id"]):
                if backfill["completed_at"] is None:
                    self._call("PUT", f"/backfills/{backfill['id']}/cancel")
            return self._call("POST", "/backfills", json=body)
        except ApiError as error:
            if error.status is None or error.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                return None
            raise

    def _has_dag(self, dag_id: str) -> bool:
        try:
            self.get(f"/dags/{quote(dag_id)}")
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def _ended(self, dag_id: str, run_id: str, watch: Watch) -> str | None:
        state = str(self.run(dag_id, run_id)["state"])
        watch(self.instances(dag_id, run_id))
        return state if state in FINISHED else None

    def _pages(self, path: str, key: str, **params: Any) -> Iterator[Record]:
        offset = 0
        while True:
            page = self._call("GET", path, params={"limit": 100, "offset": offset, "order_by": "id", **params})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def _call(self, method: str, path: str, **options: Any) -> Record:
        if "Authorization" not in self._http.headers:
            token = self._send("POST", "/auth/token", json=self._login)["access_token"]
            self._http.headers["Authorization"] = f"Bearer {token}"
        return self._send(method, f"/api/v2{path}", **options)

    def _send(self, method: str, path: str, **options: Any) -> Record:
        try:
            answer = self._http.request(method, path, headers={"Accept": "application/json"}, **options)
        except httpx.TransportError as error:
            raise ApiError(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", answer.status_code)
        return dict(answer.json()) if answer.content else {}


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _log_line(entry: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in entry.items()) if isinstance(entry, dict) else str(entry)
