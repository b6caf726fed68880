"""The operator that asks a person about images: pictures in Airflow's own form, one decision for each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import (
    AirflowOptionalProviderFeatureException,
    BaseOperator,
    TaskDeferred,
)
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.operators.manifest import push_result
from airflow_provider_nanobanana.retry_policy import with_retry_policy
from airflow_provider_nanobanana.stored_forms import REVIEW
from airflow_provider_nanobanana.toapis import errors
from airflow_provider_nanobanana.toapis.line_logger import LineLogger
from airflow_provider_nanobanana.unexpected_errors import wrap_unexpected_errors
from airflow_provider_nanobanana.worker_threads import SUPERVISOR_LOCK

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.standard.operators.hitl import HITLOperator

    from airflow_provider_nanobanana.batch.result_images import Record, ResultImages
    from airflow_provider_nanobanana.batch.review import Decision
else:
    try:
        from airflow.providers.standard.operators.hitl import HITLOperator
    except (ImportError, AirflowOptionalProviderFeatureException):  # Airflow 3.0
        HITLOperator = BaseOperator

log = LineLogger(__name__)

#: XCom of the task itself: which pictures were asked about. Airflow keeps it until a new try begins.
ASKED_KEY: Final = "nanobanana_review"
#: The gallery shows so many in one window; each is a line of the form, and a record in XCom.
MOST_IMAGES: Final = 2_000
#: Manifests that are read for the pictures in the form.
_MOST_MANIFESTS: Final = 12
#: Seconds between two attempts to write rejections, and after which no further one is made.
_PAUSE: Final = 60.0
_LONGEST_TROUBLE: Final = 3_600.0
#: What is said of a newer version.
_OLDER_APPROVED: Final = "An older version was approved; nobody was asked about this one."
#: Pictures that a line or an error names.
_MOST_LISTED: Final = 10


class NanoBananaReviewOperator(HITLOperator):
    """Ask a person which images to use; the answer comes from Airflow's form, its API, or the gallery (docs/review.md).

    The form shows the first six pictures with a link to the gallery, where each is ticked. It waits without
    a worker. Rejections are written beside the images (``.nanobanana/rejections``), so that no run uses these pictures
    again; approving a picture takes an earlier rejection of it back, and rejects newer versions of it that were not
    asked about, which would be used instead. Where nothing is to be reviewed, nobody is asked.

    Returns ``{"approved", "rejected", "by", "comment"}``: records of images as they were given, the name of who decided
    (None: the time limit did, or nobody was asked) and the comment, or None. Each is an XCom of its own, too:
    ``redo=review.output["rejected"]`` of a generate operator makes these again.

    Needs Airflow 3.1 or newer. Arguments of ``HITLOperator`` beside those below: ``body`` (Markdown above the
    pictures), ``assigned_users``, ``notifiers``, ``response_timeout``, and ``defaults``, which is taken when that time
    is over: ``"Approve all"`` or ``"Reject all"``; without it the task fails then.

    :param images: What a generate or a download operator returned (its ``output``), mapped or not; records out of it;
        lists of these. At most 2,000 images.
    :param subject: Headline of the form.
    :raises NanoBananaFailException: ``images`` is no result, or rejections could not be written for an hour: the
        decision is in XCom then.
    :raises NanoBananaException: The answer decides nothing, or is about pictures that are all gone; a retry asks again.
    """

    template_fields: Sequence[str] = ("subject", "body", "images")
    ui_color = "#d7c9f0"

    def __init__(self, *, images: Any, subject: str = "Review the images", **kwargs: Any) -> None:
        from airflow_provider_nanobanana.batch.review import APPROVE_SELECTED, OPTIONS

        if HITLOperator is BaseOperator:
            raise RuntimeError(
                "NanoBananaReviewOperator needs Airflow 3.1 and the HITLOperator of apache-airflow-providers-standard."
            )
        for name in ("options", "multiple"):
            if name in kwargs:
                raise ValueError(f"{name} of NanoBananaReviewOperator cannot be chosen: the options are {OPTIONS}.")
        # Airflow puts the DAG's params here; those of the form are its own.
        kwargs["params"] = _form_params([], {})
        # An XCom for each key besides: so output["rejected"] is what redo takes.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(subject=subject, options=[*OPTIONS], **with_retry_policy(kwargs))
        if self.defaults == [APPROVE_SELECTED]:
            raise ValueError(f"defaults cannot be {APPROVE_SELECTED!r}: when the time is over, nobody selects.")
        self.images = images

    def execute(self, context: Context) -> Any:
        """Ask, unless there is nothing to ask about."""
        with airflow_errors():
            given = self._given()
            if not given.images:
                log.info("There is nothing to review: no images came from the tasks before. Nobody is asked.")
                return {"approved": [], "rejected": [], "by": None, "comment": None}
            self._fill_form(context, given)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer: write the rejections, then return what was decided."""
        from airflow_provider_nanobanana.batch.review import APPROVED, COMMENT, Decision

        # Those of a form without the DAG's params, of which older versions expect an answer too.
        self.params = ParamsDict(_form_params([], {}))
        if "error" in event:
            return super().execute_complete(context, event)
        with airflow_errors():
            decision = Decision.of_answer(event, _pictures_asked(context))
            log.info("Decided by %s", decision.in_words())
            fields = {APPROVED: sorted(decision.approved), COMMENT: decision.comment}
            super().execute_complete(context, {**event, "params_input": fields})
            return self._carry_out(context, decision, NanoBananaHook.clock() + _LONGEST_TROUBLE)

    def execute_decided(
        self,
        context: Context,
        event: Mapping[str, Any] | None = None,
        decision: Mapping[str, Any] | None = None,
        **_from_newer_versions: Any,
    ) -> Any:
        """Write the rejections after a wait; what was decided comes with the deferral."""
        from airflow_provider_nanobanana.batch.review import Decision

        # Airflow leaks events into later attempts (its issue 62845): then this is a start like any other.
        # What a later release's trigger says beside the ticket need not be known: the decision is here.
        if not (isinstance(event, Mapping) and event.get("ticket") == _ticket(context) and decision):
            return self.execute(context)
        deadline = event.get("deadline")
        with airflow_errors():
            return self._carry_out(
                context, Decision.of_plain(decision), deadline if isinstance(deadline, (int, float)) else 0.0
            )

    def _given(self) -> ResultImages:
        """Return what is to be reviewed.

        :raises ToApisError: It cannot be understood, or not be read.
        """
        from airflow_provider_nanobanana.batch.result_images import result_images

        given = result_images(self.images)
        if len(given.images) > MOST_IMAGES:
            raise errors.InvalidRequest(
                f"There are {len(given.images):,} images to review; one task asks about {MOST_IMAGES:,} at most. Give "
                "each of several review tasks a part of them. Nobody was asked, and nothing was charged."
            )
        return given

    def _fill_form(self, context: Context, given: ResultImages) -> None:
        """Put the images into the form, and keep which ones are asked about."""
        from airflow_provider_nanobanana.batch.review import form_text, labels, pictures

        called = labels(given.images)
        ti: Any = context["ti"]
        with SUPERVISOR_LOCK:
            ti.xcom_push(key=ASKED_KEY, value={"version": REVIEW.version, "pictures": pictures(given.images)})
        self.params = ParamsDict(_form_params([*called], called))
        self.body = form_text(
            self.body,
            given.images,
            called,
            run={"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index},
            places=self._places(context, given),
        )
        log.info("Asking about %s: %s", f"{len(called):,} images", ", ".join([*called.values()][:_MOST_LISTED]))

    def _places(self, context: Context, given: ResultImages) -> dict[str, Mapping[str, Any]]:
        """Return the task instances that made the pictures in the form, by URI, as far as manifests tell.

        A picture that is not found is missing in the form alone: trouble with it is no error.
        """
        from airflow_provider_nanobanana.batch.result_images import read_manifest
        from airflow_provider_nanobanana.batch.review import shown_first

        wanted = {image["uri"] for image in shown_first(given.images)}
        places: dict[str, Mapping[str, Any]] = {}
        # Lazily: XCom is asked only for what the results themselves do not tell.
        for uri in islice(chain(given.manifests, _manifests_before(self, context)), _MOST_MANIFESTS):
            try:
                with wrap_unexpected_errors("The manifest could not be read"):
                    manifest = read_manifest(uri)
                    run = {name: manifest[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
                    places.update({image["uri"]: run for image in manifest["images"] if image["uri"] in wanted})
            except errors.ToApisError as error:
                log.debug("No pictures of %s are shown in the form: %s", uri, error.message)
            if places.keys() >= wanted:
                break
        return places

    def _carry_out(self, context: Context, decision: Decision, deadline: float) -> Any:
        """Write the rejections and return the result; where that cannot be done now, wait without a worker.

        :param deadline: Epoch seconds after which no further attempt is made.
        :raises TransientFailure: Nothing is left of what was asked about.
        """
        from airflow_provider_nanobanana.batch.rejections import rejected_among

        now = NanoBananaHook.clock()
        try:
            asked = _asked(self._given().images, decision)
            if asked:
                # A person's word goes before an earlier one; a time limit's does not.
                stay = set() if decision.by else rejected_among(_uris(asked.values()))
                result = _result(asked, decision, stay)
                # Whatever follows, the decision is there; a new try alone removes it.
                push_result(context, self, result)
                for key in result if self.multiple_outputs and self.do_xcom_push else ():
                    with SUPERVISOR_LOCK:
                        context["ti"].xcom_push(key=key, value=result[key])
                _write(result, stay, now)
        except errors.ToApisError as error:
            if not error.retryable or now + _PAUSE >= deadline:
                raise _not_carried_out(decision, error) from error
            log.warning("%s Trying again in %.0f s.", error.message, _PAUSE)
            raise _deferral(context, decision, now + _PAUSE, deadline) from error
        if not asked:
            raise _nothing_left(decision)
        return result


def _form_params(keys: Collection[str], called: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the form: which images are approved, and a comment.

    The keys are examples and no ``enum``: when the answer comes, its schema is that of a task that has not asked yet.
    """
    from airflow_provider_nanobanana.batch.review import APPROVED, COMMENT

    schema: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "string"}, "title": "Approved images"}
    if keys:
        schema |= {"examples": [*keys], "values_display": dict(called)}
    return {
        APPROVED: Param([], **schema),
        COMMENT: Param("", type=["string", "null"], title="Comment"),
    }


def _manifests_before(operator: BaseOperator, context: Context) -> Iterator[str]:
    """Yield the manifests of the tasks anywhere before a task that land images; asked for the form's pictures only."""
    from airflow_provider_nanobanana.operators.download import NanoBananaDownloadOperator
    from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator

    ti: Any = context["ti"]
    for task in operator.get_flat_relatives(upstream=True) if operator.has_dag() else ():
        task_class = getattr(task, "operator_class", type(task))
        if not issubclass(task_class, (NanoBananaDownloadOperator, NanoBananaGenerateOperator)):
            continue
        try:
            with SUPERVISOR_LOCK, wrap_unexpected_errors("XCom could not be read"):
                pulled = ti.xcom_pull(task_ids=task.task_id, key="nanobanana_gallery")
                values = [pulled] if isinstance(pulled, Mapping) else list(pulled or ())
        except errors.ToApisError as error:
            log.debug("Where %s has its manifest is not known: %s", task.task_id, error.message)
            continue
        for value in values:
            if isinstance(value, Mapping) and isinstance(value.get("manifest"), str):
                yield value["manifest"]


def _uris(images: Iterable[Record]) -> list[str]:
    return [image["uri"] for image in images]


def _result(asked: Mapping[str, Record], decision: Decision, stay: Collection[str]) -> dict[str, Any]:
    """Return the result of a review.

    :param asked: The images that were decided about, by key.
    :param stay: URIs of those that are rejected, and cannot be approved by this decision.
    """
    approved = {key for key, image in asked.items() if key in decision.approved and image["uri"] not in stay}
    if kept := len(decision.approved & asked.keys()) - len(approved):
        log.warning(
            "%s images are rejected by an earlier decision; a time limit does not change that, they stay rejected.",
            f"{kept:,}",
        )
    return {
        "approved": [image for key, image in asked.items() if key in approved],
        "rejected": [image for key, image in asked.items() if key not in approved],
        "by": decision.by,
        "comment": decision.comment,
    }


def _write(result: Mapping[str, Any], stay: Collection[str], now: float) -> None:
    """Write the rejections of a result; a person's approval is made good, too.

    :param stay: URIs of those that are rejected already.
    :param now: Epoch seconds.
    :raises ToApisError: Some could not be written.
    """
    from airflow_provider_nanobanana.batch.rejections import newer_versions, take_back_rejections, write_rejections
    from airflow_provider_nanobanana.batch.review import TIME_LIMIT

    approved, rejected = _uris(result["approved"]), _uris(result["rejected"])
    by = result["by"] or TIME_LIMIT
    # First: an image of which all versions are rejected, if for a moment, would be bought once more.
    kept = take_back_rejections(approved) if result["by"] else {}
    for uri, error in kept.items():
        log.warning(
            "%s is approved, and still rejected by an earlier decision, so that the next run makes a new version "
            "of it; delete its file below .nanobanana/rejections. It could not be removed: %s",
            uri,
            error.message,
        )
    new = [uri for uri in rejected if uri not in stay]
    if unwritten := write_rejections(new, by=by, comment=result["comment"] or "", now=now):
        raise _unwritten(len(new), unwritten)
    chosen = [uri for uri in approved if uri not in kept] if result["by"] else []
    newer = newer_versions(chosen, approved + rejected)
    if newer:
        log.warning(
            "An older version is approved. %s newer ones, which would be used instead, are rejected: %s",
            f"{len(newer):,}",
            " ".join(newer[:_MOST_LISTED]),
        )
    if unwritten := write_rejections(newer, by=by, comment=_OLDER_APPROVED, now=now):
        raise _unwritten(len(newer), unwritten)


def _ticket(context: Context) -> str:
    """Return what tells this task instance's own timer events from those of others."""
    ti: Any = context["ti"]
    return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}/{ti.map_index}/{ti.try_number}"


def _pictures_asked(context: Context) -> dict[str, str]:
    """Return the pictures that the form was about, as ``batch.review.pictures`` does.

    :raises TransientFailure: They are not known.
    """
    ti: Any = context["ti"]
    with SUPERVISOR_LOCK:
        kept = ti.xcom_pull(task_ids=ti.task_id, key=ASKED_KEY, map_indexes=ti.map_index)
    if isinstance(kept, Mapping):
        REVIEW.refuse_newer(kept.get("version"), "Which images the form was about")
    asked = kept.get("pictures") if isinstance(kept, Mapping) else None
    if not isinstance(asked, dict):
        raise errors.TransientFailure(
            f"Which images the form was about is not in XCom ({ASKED_KEY}) any more: somebody has removed it. Nothing "
            "was decided, and nothing was bought. The next attempt asks again."
        )
    return asked


def _asked(images: Sequence[Record], decision: Decision) -> dict[str, Record]:
    """Return the images that were decided about, by key.

    While the form waited, a task before may have run again and have other images now: these nobody has seen.
    """
    asked = decision.still_there(images)
    if gone := len(decision.asked) - len(asked):
        log.warning(
            "%s of the images that were asked about are not among those of the tasks before any more, which ran again "
            "meanwhile, or are other pictures under the same names; they are left out.",
            f"{gone:,}",
        )
    if new := len(images) - len(asked):
        log.warning("%s images were not asked about; they are left out.", f"{new:,}")
    return asked


def _nothing_left(decision: Decision) -> errors.ToApisError:
    """Return the error of a decision on pictures of which none is there any more."""
    return errors.TransientFailure(
        f"Decided by {decision.in_words()}. The tasks before ran again meanwhile, and none of these pictures is among "
        "theirs any more, so nothing was written, and nothing was bought. The next attempt asks again, about those "
        "that there are now.",
        charged="no",
    )


def _deferral(context: Context, decision: Decision, moment: float, deadline: float) -> TaskDeferred:
    """Return a wait without a worker that carries the decision: a retry of the task would ask the person again.

    It has no time limit of its own: while the triggerer is away it lasts.
    """
    from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger

    return TaskDeferred(
        trigger=NanoBananaTimerTrigger(moment=moment, deadline=deadline, ticket=_ticket(context)),
        method_name="execute_decided",
        kwargs={"decision": decision.plain()},
    )


def _unwritten(wanted: int, unwritten: Mapping[str, errors.ToApisError]) -> errors.ToApisError:
    """Return the error of rejections that could not be written; a repeat helps where it helps each of them.

    :param wanted: How many were to be written.
    :param unwritten: Why it could not be, by URI.
    """
    uris = [*unwritten]
    first = min(unwritten.values(), key=lambda error: error.retryable)
    named = " ".join(uris[:_MOST_LISTED])
    more = f" (and {len(uris) - _MOST_LISTED:,} more: the others of `rejected`)" if len(uris) > _MOST_LISTED else ""
    return first.reworded(
        f"Of {wanted:,} rejections {len(uris):,} could not be written: {first.message} By hand: "
        f"`python -m airflow_provider_nanobanana reject --by NAME {named}`{more}.",
        charged="no",
    )


def _not_carried_out(decision: Decision, error: errors.ToApisError) -> errors.ToApisError:
    """Return the error of a decision that is not carried out; no retry follows, which would ask the person again."""
    return errors.InvalidRequest(
        f"Decided by {decision.in_words()}. {error.message} What is decided is in this task's XCom as its result, as "
        "far as its images could be read, and in its required action. Either write the rejections by hand and mark "
        "this task as success, and the tasks behind it go on; or clear it, and it asks again. Nothing was bought.",
        first_step="Write the rejections and mark this task as success; or clear it.",
    )
