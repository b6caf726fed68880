"""Campaign: how many images to buy, what to kill how often, and how hostile the emulator is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.emulator import Hostility
from tests.chaos.installation import InstallationSpec
from tests.chaos.workload import OverlappingRuns, SeparateRuns, Workload

#: How often each kind of kill occurs in a hundred or so.
MIX = {
    "task": 34,  # the process that runs the operator
    "supervisor": 12,  # its supervisor, alone or with the task
    "triggerer": 12,
    "scheduler": 8,  # alone or, as a container would die, with every worker and task below it
    "api-server": 8,
    "celery-worker": 8,  # alone or with every task below it
    "service-connection": 18,  # a request to the emulator loses its connection
    "database-connections": 8,  # a share of all connections to PostgreSQL at once
}


@dataclass(frozen=True)
class Campaign:
    """What one campaign does; times in seconds.

    :param dag_id: Which of the pipelines in ``dags``.
    :param images: Different ones wanted in all, in DAG runs of ``run_size``.
    :param overlap: DAG runs at once, so that the submits of one meet the downloads of another.
    :param shared: Whether all runs ask for pictures of one list at one destination; else each has its own.
    :param mix: How often each kind of kill occurs, relative to the others; of :data:`MIX`.
    :param pace: Mean time between two kills.
    :param ahead: Share of the kills by which they may run ahead of what is done, so that every phase gets its share.
    :param aim: Share of the kills of tasks that wait for a submit which the emulator is accepting; others hit any.
    :param latency: Median time an image takes.
    :param limit: After this time a task that has not ended counts as stuck.
    """

    name: str
    dag_id: str
    images: int
    kills: int
    run_size: int = 20
    overlap: int = 4
    shared: bool = False
    mix: Mapping[str, int] = field(default_factory=lambda: MIX)
    pace: float = 5.0
    ahead: float = 1 / 12
    aim: float = 0.5
    latency: float = 40.0
    limit: float = 1800.0
    hostility: Hostility = field(default_factory=Hostility)
    installation: InstallationSpec = field(default_factory=InstallationSpec)

    @property
    def workload(self) -> Workload:
        """What its runs want."""
        return (OverlappingRuns if self.shared else SeparateRuns)(self.images, self.run_size)
