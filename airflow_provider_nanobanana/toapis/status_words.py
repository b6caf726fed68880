"""ImageTaskStatus: what the service's word for the state of an image task amounts to.

The documented words are in ``docs/toapis.md``, "Status"; the others are those of other gateways of the same kind, which
this one passes on. Only a whole word decides: to take an unknown one for a failure could buy the image a second time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from airflow_provider_nanobanana.toapis.response_values import plain_word


class ImageTaskStatus(StrEnum):
    """What a wire status amounts to; every word that is neither success nor failure is running."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


_COMPLETED: Final = frozenset(
    """
    completed complete succeeded succeed success successful successfully finished finish done ok ready generated 1
    all_done fulfilled finalized
    成功 完成 已完成 生成成功 已成功
    """.split()  # noqa: SIM905
)
_FAILED: Final = frozenset(
    """
    failed fail failure error errored cancelled canceled cancel expired timeout timed_out time_out timedout rejected
    reject refused denied moderated content_moderated blocked filtered content_filtered aborted abort terminated
    killed unsuccessful crashed
    失败 生成失败 已取消 超时 已超时 已过期 审核未通过 已拒绝
    """.split()  # noqa: SIM905
)
_RUNNING: Final = frozenset(
    """
    0 queued queue in_queue queueing queuing enqueued pending submitted in_progress inprogress progress processing
    process running run not_start not_started notstart unstarted starting started start created accepted received
    waiting wait scheduled retrying retry preparing prepared initializing initialized generating rendering working
    active uploading downloading moderating reviewing validating throttled paused delayed dispatching assigned
    booting new in_process being_processed pre_processing post_processing
    排队中 处理中 生成中 进行中 等待中 已提交 运行中
    """.split()  # noqa: SIM905
)
_MODERATED: Final = frozenset({"moderated", "content_moderated", "content_filtered", "审核未通过"})
_EXPIRED: Final = frozenset({"expired", "已过期"})
#: What a word may begin with without meaning anything else, as in ``TASK_STATUS_SUCCEED`` or ``generation.completed``.
_PREFIXES: Final = ("task_", "job_", "status_", "state_", "image_", "images_", "generation_", "request_")


def _bare_word(wire_status: str) -> str:
    """Return a status word as the tables here have it."""
    word = plain_word(wire_status)
    while any(word.startswith(prefix) for prefix in _PREFIXES):
        word = word.partition("_")[2]
    return word


def parse_status(wire_status: str) -> ImageTaskStatus | None:
    """Return what a wire status amounts to: no word is running; None for a word that nobody knows."""
    word = _bare_word(wire_status)
    if word in _COMPLETED:
        return ImageTaskStatus.COMPLETED
    if word in _FAILED:
        return ImageTaskStatus.FAILED
    return ImageTaskStatus.RUNNING if not word or word in _RUNNING else None


def says_moderated(wire_status: str) -> bool:
    """Whether the status word itself says that the content was refused."""
    return _bare_word(wire_status) in _MODERATED


def says_expired(wire_status: str) -> bool:
    """Whether the status word itself says that the result expired."""
    return _bare_word(wire_status) in _EXPIRED
