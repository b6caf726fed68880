from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, TaskDeferred
from airflow.sdk import DAG

from airflow_provider_nanobanana.batch import rejections
from airflow_provider_nanobanana.exceptions import NanoBananaException, NanoBananaFailException
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.landing import versions
from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.landing.image_store import ImageStore
from airflow_provider_nanobanana.landing.versions import VersionFolder
from airflow_provider_nanobanana.operators import nanobanana, review
from airflow_provider_nanobanana.operators.generate import NanoBananaGenerateOperator
from airflow_provider_nanobanana.operators.nanobanana import NanoBananaReviewOperator
from airflow_provider_nanobanana.toapis.errors import InvalidRequest, StorageFailed
from airflow_provider_nanobanana.triggers.timer import NanoBananaTimerTrigger
from tests.support.task_runner import TaskInstance
from tests.support.versions import REVIEWS, gives, reason

if not gives(REVIEWS):
    pytest.skip(reason(REVIEWS), allow_module_level=True)

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators import hitl

#: What ends a process that asked: from Airflow 3.3 on a state of its own.
WAITS: Any = (TaskDeferred, getattr(hitl, "TaskAwaitingInput", TaskDeferred))
UMA = {"id": "7", "name": "uma"}
ALL, NONE, SOME = "Approve all", "Reject all", "Approve selected"


class Folder:
    """Three pictures at one destination, as a generate task left them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = [
            {"uri": f"{path.as_uri()}/{name}-1.png", "request": number, "name": name, "prompt": f"a {name}"}
            for number, name in enumerate(("cup", "kite", "boat"))
        ]
        self.keys = [image_key(str(image["uri"])) for image in self.images]
        run = {"dag_id": "dag", "run_id": "run", "task_id": "make", "map_index": -1}
        self.manifest = path / "manifest-dag-run-make-0.json"
        path.mkdir(parents=True, exist_ok=True)
        self.manifest.write_text(json.dumps({**run, "images": self.images}))

    @property
    def result(self) -> dict[str, Any]:
        return {"images": self.images, "manifest": self.manifest.as_uri(), "truncated": False, "count": 3}

    @property
    def rejected(self) -> list[str]:
        return sorted(path.stem for path in (self.path / ".nanobanana" / "rejections").glob("*.json"))

    def rejection(self, stem: str) -> dict[str, Any]:
        """What the file of a rejection says."""
        record: dict[str, Any] = json.loads((self.path / ".nanobanana" / "rejections" / f"{stem}.json").read_text())
        return record

    def current(self, base: str) -> list[int]:
        """The versions that a run may use, the one that it does first."""
        return VersionFolder(ImageStore(self.path.as_uri()).reserved).of(base).alive

    def take(self, base: str, number: int) -> None:
        """Take the number of a version, as the run does that makes it."""
        assert VersionFolder(ImageStore(self.path.as_uri()).reserved).take(base, number, ["dag", "run"], 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "images")


class Review:
    """A review task instance between its processes: each has an operator of its own, as in Airflow."""

    def __init__(self, images: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.images, self.options = images, options
        self.ti = TaskInstance(task_id="review")
        self.ti.id = "ti"  # type: ignore[attr-defined]
        self.forms: list[dict[str, Any]] = []
        monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **form: self.forms.append(form))
        self.context: Any = {"ti": self.ti, "task_instance": self.ti}

    def operator(self) -> NanoBananaReviewOperator:
        return NanoBananaReviewOperator(task_id="review", images=self.images, **self.options)

    def ask(self) -> dict[str, Any]:
        """Let it ask; give the form."""
        with pytest.raises(WAITS):
            self.operator().execute(self.context)
        return self.forms[-1]

    def answer(self, option: Any, approved: Any = None, comment: Any = None, user: Any = UMA, **more: Any) -> Any:
        """Answer it; give the result."""
        event = {
            "chosen_options": option if isinstance(option, list) else [option],
            "params_input": {"approved": approved, "comment": comment} | more,
            "responded_at": datetime(2026, 11, 26, tzinfo=UTC),
            "responded_by_user": user,
        }
        return self.operator().execute_complete(self.context, event)


@pytest.fixture
def asked(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Review:
    one = Review(folder.result, monkeypatch)
    one.ask()
    return one


# --- asking --------------------------------------------------------------------------------------------------------


def test_the_form_has_pictures_choices_and_a_comment(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    form = Review(folder.result, monkeypatch, body="Look!", subject="Banners").ask()
    assert (form["subject"], form["options"], form["multiple"]) == ("Banners", [SOME, ALL, NONE], False)
    assert form["body"].startswith("Look!\n\n**3 images**")
    assert form["body"].count("nanobanana/api/thumb/dag?run_id=run&task_id=make&map_index=-1&key=") == 3
    approved = form["params"]["approved"]["schema"]
    assert approved["examples"] == folder.keys == [*approved["values_display"]]
    assert [*approved["values_display"].values()] == ["cup · a cup", "kite · a kite", "boat · a boat"]
    assert [*form["params"]] == ["approved", "comment"]


def test_the_params_of_the_dag_are_no_fields_of_the_form(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review(folder.result, monkeypatch)
    with DAG("shop", schedule=None, params={"season": "autumn", "comment": "mine"}):
        operator = one.operator()
    with pytest.raises(WAITS):
        operator.execute(one.context)
    assert [*one.forms[0]["params"]] == ["approved", "comment"]


def test_a_manifest_that_is_gone_costs_the_form_its_pictures_alone(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.manifest.unlink()
    form = Review(folder.result, monkeypatch).ask()
    assert "![" not in form["body"] and "kite" in form["body"]


@pytest.mark.parametrize("content", [{"images": [{}]}, {"images": [3], "dag_id": "d"}, {"images": []}])
def test_a_manifest_that_is_damaged_too(folder: Folder, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    folder.manifest.write_text(json.dumps(content))
    assert "![" not in Review(folder.result, monkeypatch).ask()["body"]


def test_a_download_says_in_xcom_where_its_manifest_is(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review(folder.images, monkeypatch)
    pointer = {"version": 1, "manifest": folder.manifest.as_uri(), "destination": folder.path.as_uri()}
    pulled: list[tuple[str, str]] = []

    def pull(task_ids: str, key: str, **rest: Any) -> Any:
        pulled.append((task_ids, key))
        return [pointer, None, {}]

    monkeypatch.setattr(one.ti, "xcom_pull", pull)
    with DAG("dag", schedule=None):
        made = NanoBananaGenerateOperator(task_id="make", prompt="a", destination="file:///x")
        operator = one.operator()
        made >> operator
    with pytest.raises(WAITS):
        operator.execute(one.context)
    assert one.forms[0]["body"].count("![") == 3
    assert pulled == [("make", "nanobanana_gallery")]


@pytest.mark.parametrize("images", [None, [], [None], {"images": [], "truncated": False}, {"dry_run": True}])
def test_where_there_is_nothing_nobody_is_asked(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review(images, monkeypatch)
    nothing: dict[str, Any] = {"approved": [], "rejected": [], "by": None, "comment": None}
    assert one.operator().execute(one.context) == nothing
    assert (one.forms, one.ti.xcoms) == ([], {})


@pytest.mark.parametrize("images", ["{'images': []}", [{"code": "refused"}], 7])
def test_what_holds_no_images_fails_at_once(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review(images, monkeypatch)
    with pytest.raises(NanoBananaFailException, match="give what a generate"):
        one.operator().execute(one.context)
    assert one.forms == []


def test_more_than_a_person_can_review_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review([{"uri": f"file:///x/{number}.png"} for number in range(2_001)], monkeypatch)
    with pytest.raises(NanoBananaFailException, match="2,001 images to review"):
        one.operator().execute(one.context)


@pytest.mark.parametrize(
    "options",
    [{"options": ["A"]}, {"multiple": True}, {"defaults": SOME}, {"defaults": [SOME]}, {"defaults": "Approve"}],
)
def test_what_cannot_be_chosen(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot be|subset"):
        NanoBananaReviewOperator(task_id="review", images=[], **options)


def test_it_waits_as_the_form_of_airflow_does(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = timedelta(hours=8)
    notes: list[Any] = []
    form = Review(
        folder.result,
        monkeypatch,
        assigned_users=[UMA],
        response_timeout=limit,
        defaults=ALL,
        notifiers=[notes.append],
    ).ask()
    assert (form["assigned_users"], form["defaults"], len(notes)) == ([UMA], [ALL], 1)


def test_it_can_be_mapped() -> None:
    with DAG("shop", schedule=None):
        mapped = NanoBananaReviewOperator.partial(task_id="review", defaults=ALL).expand(images=[[], []])
    assert mapped.operator_class is NanoBananaReviewOperator


# --- answers -------------------------------------------------------------------------------------------------------


def test_each_image_is_approved_or_rejected_whole(folder: Folder, asked: Review) -> None:
    result = asked.answer(SOME, [folder.keys[0], folder.keys[2]], "too dark")
    cup, kite, boat = folder.images
    assert result == {"approved": [cup, boat], "rejected": [kite], "by": "uma", "comment": "too dark"}
    assert folder.rejected == ["kite-1"]
    record = json.loads((folder.path / ".nanobanana" / "rejections" / "kite-1.json").read_text())
    assert (record["by"], record["comment"]) == ("uma", "too dark")
    assert {key: asked.ti.xcoms[key] for key in result} == result, "an XCom each, for redo=review.output['rejected']"


@pytest.mark.parametrize(
    ("option", "approved", "rejected"),
    [
        (ALL, None, []),
        (ALL, [], []),
        (NONE, None, ["boat-1", "cup-1", "kite-1"]),
    ],
)
def test_all_or_none(folder: Folder, asked: Review, option: str, approved: Any, rejected: list[str]) -> None:
    result = asked.answer(option, approved)
    assert folder.rejected == rejected
    assert len(result["approved"]) == 3 - len(rejected)


def test_a_key_that_was_not_asked_about_and_one_twice_change_nothing(folder: Folder, asked: Review) -> None:
    result = asked.answer(SOME, [folder.keys[0], folder.keys[0], "ffff"], unknown="field")
    assert result["approved"] == folder.images[:1]


@pytest.mark.parametrize(
    ("option", "approved"), [("Nonsense", None), ([ALL, NONE], None), (SOME, []), (SOME, ["ffff"]), (SOME, "cup")]
)
def test_an_answer_that_decides_nothing_is_asked_again(
    folder: Folder, asked: Review, option: Any, approved: Any
) -> None:
    with pytest.raises(NanoBananaException, match="asks again") as refused:
        asked.answer(option, approved)
    assert refused.value.retryable
    assert folder.rejected == [] and "return_value" not in asked.ti.xcoms


def test_an_answer_through_the_api_may_lack_the_fields(folder: Folder, asked: Review) -> None:
    event = {"chosen_options": [ALL], "params_input": None, "responded_at": datetime.now(UTC), "responded_by_user": UMA}
    assert len(asked.operator().execute_complete(asked.context, event)["approved"]) == 3


def test_when_the_time_is_over_the_default_decides_and_nobody_is_named(folder: Folder, asked: Review) -> None:
    result = asked.answer(NONE, user=None)
    assert (result["by"], len(result["rejected"])) == (None, 3)
    record = json.loads((folder.path / ".nanobanana" / "rejections" / "cup-1.json").read_text())
    assert record["by"] == "nobody, the time limit passed"


def test_without_a_default_the_task_fails(asked: Review) -> None:
    with pytest.raises(HITLTimeoutError):
        asked.operator().execute_complete(asked.context, {"error": "The timeout has passed", "error_type": "timeout"})


def test_what_is_approved_now_is_rejected_no_more(folder: Folder, asked: Review) -> None:
    asked.answer(NONE)
    asked.answer(SOME, folder.keys[:1])
    assert folder.rejected == ["boat-1", "kite-1"]


def test_a_time_limit_approves_nothing_that_is_rejected(
    folder: Folder, asked: Review, caplog: pytest.LogCaptureFixture
) -> None:
    asked.answer(SOME, folder.keys[:1], "too dark")
    result = asked.answer(ALL, user=None)
    assert (result["approved"], result["rejected"]) == (folder.images[:1], folder.images[1:])
    assert "2 images" in caplog.text and "stay rejected" in caplog.text


def test_a_time_limit_leaves_what_a_person_wrote_of_a_rejection(folder: Folder, asked: Review) -> None:
    asked.answer(SOME, folder.keys[:2], "too dark")
    assert len(asked.answer(NONE, user=None)["rejected"]) == 3
    assert folder.rejected == ["boat-1", "cup-1", "kite-1"]
    assert (folder.rejection("boat-1")["by"], folder.rejection("boat-1")["comment"]) == ("uma", "too dark")
    assert folder.rejection("cup-1")["by"] == "nobody, the time limit passed"


def test_pictures_that_nobody_was_asked_about_are_not_approved(
    folder: Folder, asked: Review, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"uri": f"{folder.path.as_uri()}/cup-1-v2.png", "name": "cup"}
    asked.images = [other, *folder.images[1:]]
    result = asked.answer(ALL)
    assert result["approved"] == folder.images[1:] and result["rejected"] == []
    assert "1 of the images that were asked about" in caplog.text and "1 images were not asked about" in caplog.text


def test_another_picture_under_the_same_name_is_one_that_nobody_saw(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.images[0]["sha256"] = folder.images[1]["sha256"] = "a" * 64
    one = Review(folder.result, monkeypatch)
    one.ask()
    folder.images[0]["sha256"] = folder.images[1]["sha256"] = "b" * 64
    result = one.answer(SOME, [folder.keys[0]])
    assert (result["approved"], result["rejected"], folder.rejected) == ([], folder.images[2:], ["boat-1"])


@pytest.mark.parametrize(("before", "after"), [(None, "a" * 64), ("a" * 64, None), (None, None), ("a" * 64, "a" * 64)])
def test_a_picture_whose_hash_a_record_had_no_room_for_is_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, before: Any, after: Any
) -> None:
    folder.images[0]["sha256"] = before
    one = Review(folder.result, monkeypatch)
    one.ask()
    folder.images[0]["sha256"] = after
    assert one.answer(ALL)["approved"] == folder.images


@pytest.mark.parametrize("left", [[], ["new"], ["bought anew"]])
@pytest.mark.parametrize("user", [UMA, None])
def test_where_nothing_of_what_was_asked_about_is_left_it_asks_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, left: list[str], user: Any
) -> None:
    for image in folder.images:
        image["sha256"] = "a" * 64
    one = Review(folder.result, monkeypatch)
    one.ask()
    new = {"uri": f"{folder.path.as_uri()}/cup-2.png", "name": "cup"}
    anew = {**folder.images[0], "sha256": "b" * 64}
    one.images = [new if word == "new" else anew for word in left]
    with pytest.raises(NanoBananaException, match="asks again") as refused:
        one.answer(NONE, user=user)
    assert refused.value.retryable
    assert folder.rejected == [] and "return_value" not in one.ti.xcoms


def test_what_is_kept_of_a_form_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Review([{"uri": f"file:///x/{number}.png", "sha256": "a" * 64} for number in range(2_000)], monkeypatch)
    one.ask()
    assert len(json.dumps(one.ti.xcoms[review.ASKED_KEY])) < 100_000


# --- versions ------------------------------------------------------------------------------------------------------


def test_an_older_version_that_is_approved_is_the_one_that_is_used(folder: Folder, asked: Review) -> None:
    asked.answer(NONE)
    folder.take("cup-1", 2)
    folder.take("cup-1", 3)
    folder.take("kite-1", 2)
    result = asked.answer(SOME, folder.keys[:1])
    assert result["approved"] == folder.images[:1]
    assert (folder.current("cup-1"), folder.current("kite-1")) == ([1], [2])
    assert folder.rejected == ["boat-1", "cup-1-v2", "cup-1-v3", "kite-1"]
    record = folder.rejection("cup-1-v3")
    assert record["by"] == "uma" and record["comment"].startswith("An older version was approved")


def test_a_newer_version_that_is_asked_about_too_is_decided_by_itself(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.take("cup-1", 2)
    newer = {**folder.images[0], "uri": f"{folder.path.as_uri()}/cup-1-v2.webp", "version": 2}
    one = Review([folder.images[0], newer], monkeypatch)
    one.ask()
    one.answer(ALL)
    assert folder.current("cup-1") == [2, 1]
    one.answer(SOME, [image_key(str(newer["uri"]))])
    assert folder.current("cup-1") == [2]
    one.answer(SOME, folder.keys[:1])
    assert folder.current("cup-1") == [1]


def test_at_no_moment_all_versions_are_rejected(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run would buy another one."""
    folder.take("cup-1", 2)
    newer = {**folder.images[0], "uri": f"{folder.path.as_uri()}/cup-1-v2.png", "version": 2}
    one = Review([folder.images[0], newer], monkeypatch)
    one.ask()
    one.answer(SOME, [image_key(str(newer["uri"]))])
    seen: list[list[int]] = []
    reject, take_back = versions.reject, versions.take_back

    def rejecting(*args: Any, **options: Any) -> None:
        reject(*args, **options)
        seen.append(folder.current("cup-1"))

    def taking_back(*args: Any) -> None:
        take_back(*args)
        seen.append(folder.current("cup-1"))

    monkeypatch.setattr(rejections, "reject", rejecting)
    monkeypatch.setattr(rejections, "take_back", taking_back)
    one.answer(SOME, folder.keys[:1])
    assert seen == [[2, 1], [1]]


def test_a_version_that_is_approved_concerns_no_older_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.take("cup-1", 2)
    newer = {**folder.images[0], "uri": f"{folder.path.as_uri()}/cup-1-v2.png", "version": 2}
    one = Review([newer], monkeypatch)
    one.ask()
    one.answer(ALL)
    assert folder.rejected == []


def test_a_time_limit_chooses_no_version(folder: Folder, asked: Review) -> None:
    folder.take("cup-1", 2)
    asked.answer(ALL, user=None)
    assert folder.current("cup-1") == [2, 1]


def test_of_one_that_stays_rejected_no_newer_version_is_rejected(
    folder: Folder, asked: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With none left to use, the next run would buy another one."""
    asked.answer(NONE)
    folder.take("cup-1", 2)

    def keep(*_: Any) -> None:
        raise StorageFailed("No right to delete.")

    monkeypatch.setattr(rejections, "take_back", keep)
    asked.answer(ALL)
    assert folder.current("cup-1") == [2]


# --- rejections that cannot be written -----------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A destination that takes no rejection as long as there is an error in here."""
    state: dict[str, Any] = {"error": StorageFailed("The store is away.", charged="no")}
    reject = versions.reject

    def refuse(*args: Any, **options: Any) -> None:
        if state["error"] is not None:
            raise state["error"]
        reject(*args, **options)

    monkeypatch.setattr(rejections, "reject", refuse)
    return state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    time = SimpleNamespace(now=1_790_000_000.0)
    monkeypatch.setattr(NanoBananaHook, "clock", staticmethod(lambda: time.now))
    return time


def wait(one: Review, begin: Any) -> Any:
    """Let a process wait; give the deferral."""
    with pytest.raises(TaskDeferred) as deferred:
        begin()
    assert deferred.value.method_name == "execute_decided"
    assert isinstance(deferred.value.trigger, NanoBananaTimerTrigger)
    return deferred.value


def go_on(one: Review, deferral: Any) -> Any:
    trigger = deferral.trigger
    event = {"deadline": trigger.deadline, "ticket": trigger.ticket}
    kwargs = json.loads(json.dumps(deferral.kwargs))
    return one.operator().execute_decided(one.context, event=event, **kwargs)


def test_a_store_that_is_away_loses_no_decision(
    folder: Folder, asked: Review, full: dict[str, Any], clock: SimpleNamespace
) -> None:
    deferral = wait(asked, lambda: asked.answer(SOME, folder.keys[:1], "too dark"))
    assert len(asked.ti.xcoms["rejected"]) == 2, "it is in XCom already"
    clock.now += 61
    deferral = wait(asked, lambda: go_on(asked, deferral))
    full["error"] = None
    result = go_on(asked, deferral)
    assert (len(result["approved"]), result["by"], result["comment"]) == (1, "uma", "too dark")
    assert folder.rejected == ["boat-1", "kite-1"]
    assert len(asked.forms) == 1, "nobody was asked again"


def test_after_an_hour_it_says_what_was_decided_and_how_to_keep_it(
    folder: Folder, asked: Review, full: dict[str, Any], clock: SimpleNamespace
) -> None:
    deferral = wait(asked, lambda: asked.answer(SOME, folder.keys[:1]))
    for _ in range(60):
        clock.now += 60
        try:
            deferral = wait(asked, lambda: go_on(asked, deferral))  # noqa: B023
        except NanoBananaFailException as failure:
            text = " ".join(str(failure).split())
            break
    assert "uma: 1 approved, 2 rejected" in text
    assert "Of 2 rejections 2 could not be written: The store is away." in text
    assert f"reject --by NAME {folder.images[1]['uri']} {folder.images[2]['uri']}" in text
    assert "mark this task as success" in text and "asks again" in text


def test_what_no_repeat_can_help_fails_at_once(
    folder: Folder, asked: Review, full: dict[str, Any], clock: SimpleNamespace
) -> None:
    full["error"] = InvalidRequest("No such place.")
    with pytest.raises(NanoBananaFailException, match="No such place"):
        asked.answer(NONE)
    assert asked.ti.xcoms["return_value"]["by"] == "uma"


def test_a_version_that_cannot_be_rejected_waits_likewise_and_the_older_one_can_be_used(
    folder: Folder, asked: Review, full: dict[str, Any], clock: SimpleNamespace
) -> None:
    full["error"] = None
    asked.answer(NONE)
    folder.take("cup-1", 2)
    full["error"] = StorageFailed("The store is away.", charged="no")
    deferral = wait(asked, lambda: asked.answer(ALL))
    assert folder.current("cup-1") == [2, 1], "at no moment there is none, of which the next run would buy another one"
    full["error"] = None
    assert len(go_on(asked, deferral)["approved"]) == 3
    assert (folder.current("cup-1"), folder.rejected) == ([1], ["cup-1-v2"])


def test_a_manifest_that_is_away_loses_no_decision_either(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    one = Review({**folder.result, "images": [], "truncated": True}, monkeypatch)
    one.ask()
    content = folder.manifest.read_text()
    folder.manifest.unlink()
    deferral = wait(one, lambda: one.answer(SOME, folder.keys[:1]))
    assert deferral.timeout is None, "it lasts while the triggerer is away"
    folder.manifest.write_text(content)
    assert [image["name"] for image in go_on(one, deferral)["rejected"]] == ["kite", "boat"]


def test_a_form_of_which_nobody_knows_what_it_was_about_decides_nothing(folder: Folder, asked: Review) -> None:
    del asked.ti.xcoms[review.ASKED_KEY]
    with pytest.raises(NanoBananaException, match="asks again"):
        asked.answer(ALL)
    assert folder.rejected == []


def test_the_wait_of_an_earlier_try_is_a_start_like_any_other(
    folder: Folder, asked: Review, full: dict[str, Any], clock: SimpleNamespace
) -> None:
    deferral = wait(asked, lambda: asked.answer(NONE))
    asked.ti.try_number = 2
    with pytest.raises(WAITS):
        go_on(asked, deferral)
    assert len(asked.forms) == 2


def test_a_rejection_that_cannot_be_taken_back_is_a_warning(
    folder: Folder, asked: Review, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked.answer(NONE)

    def keep(*_: Any) -> None:
        raise StorageFailed("No right to delete.")

    monkeypatch.setattr(rejections, "take_back", keep)
    assert len(asked.answer(ALL)["approved"]) == 3
    assert "No right to delete." in caplog.text and "makes a new version" in caplog.text


# --- where there is no form ----------------------------------------------------------------------------------------


def test_before_airflow_3_1_it_can_be_imported_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nanobanana.NanoBananaReviewOperator is NanoBananaReviewOperator
    monkeypatch.setattr(review, "HITLOperator", BaseOperator)
    with pytest.raises(RuntimeError, match=r"needs Airflow 3\.1"):
        NanoBananaReviewOperator(task_id="review", images=[])


def test_there_is_nothing_else_to_import() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = nanobanana.Nonsense
