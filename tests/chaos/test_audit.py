"""The audit, the report and the order of the kills, without any process."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_nanobanana.landing.file_names import stem_for
from tests.chaos.audit import Audit, audit_of, audit_of_shared, complete_files, manifest_sums
from tests.chaos.campaigns import MIX, Campaign
from tests.chaos.killer import shuffled_kinds
from tests.chaos.report import as_json, as_text, broken
from tests.chaos.runner import Outcome
from tests.chaos.workload import OverlappingRuns, request


def charge(key: str, prompt: str, created: float = 100.0, refunded: bool = False) -> dict[str, Any]:
    return {"id": key, "prompt": prompt, "created": created, "refunded": refunded, "charged_usd": 0.025}


def outcome(audit: Audit, dag_id: str = "chaos_provider") -> Outcome:
    campaign = Campaign("one", dag_id, images=audit.wanted, kills=0)
    return Outcome(campaign, 1, 60.0, audit, [], {"submit": 2}, {}, [], {})


def test_every_prompt_is_landed_stopped_or_lost() -> None:
    audit = audit_of(
        prompts=["landed", "twice", "stopped", "lost", "refunded"],
        image_tasks=[
            charge("t1", "landed"),
            charge("t2", "twice"),
            charge("t3", "twice"),
            charge("t4", "stopped"),
            charge("t5", "refunded", refunded=True),
            charge("t6", "nobody asked"),
        ],
        complete=[stem_for("t1", 0), stem_for("t3", 0)],
        submits={"landed": {"start_date": "1970-01-01T00:01:41+00:00"}, "twice": {"start_date": None}},
        messages={"stopped": "may have bought"},
        reattached=1,
    )
    assert (audit.wanted, audit.landed, audit.charges, audit.extra) == (5, 2, 5, 1)
    assert audit.duplicates == {"twice": 2}
    assert [(stop.prompt, stop.charges) for stop in audit.stopped] == [("stopped", 1)]
    assert audit.lost == ["lost", "refunded"]
    assert audit.not_landed == ["t2", "t4", "t6"]
    assert audit.unwanted == ["nobody asked"]
    assert audit.recovered == 1, "its last attempt began a second after the charge"
    assert broken(outcome(audit)) == [
        "1 charges too many",
        "1 charges for prompts that no run asked for",
        "2 images lost",
        "1 submits stopped",
        "2 of 5 images landed",
    ]
    assert broken(outcome(audit, "chaos_naive")) == []
    text = as_text([outcome(audit)])
    for line in ("charged 2 times: twice", "stopped: stopped (charges: 1): may have bought", "lost: refunded"):
        assert line in text
    assert '"broken"' in as_json([outcome(audit)])


def test_a_strict_campaign_may_stop_but_not_pay_twice() -> None:
    audit = audit_of(["stopped"], [charge("t1", "stopped")], [], {}, {"stopped": "why"}, 0)
    assert broken(outcome(audit, "chaos_strict")) == []
    assert broken(outcome(audit)) != []


def test_half_an_image_is_not_complete(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert complete_files(tmp_path) == ["whole"]


def test_the_order_of_kills_is_repeatable_and_holds_every_kind() -> None:
    drawn = shuffled_kinds(random.Random(3), 50, MIX)
    assert drawn == shuffled_kinds(random.Random(3), 50, MIX) != shuffled_kinds(random.Random(4), 50, MIX)
    counted = Counter(drawn)
    assert len(drawn) == 50
    assert set(counted) == set(MIX)
    assert counted["task"] > counted["scheduler"]


def test_runs_have_the_wanted_number_of_images() -> None:
    assert Campaign("one", "chaos_provider", images=53, kills=1, run_size=25).workload.sizes() == [25, 25, 3]


def test_a_charge_too_many_at_one_destination_is_a_reported_lost_race_or_a_broken_promise() -> None:
    once, twice, lost, stopped = (request(f"picture-00{number}")["prompt"] for number in range(4))
    bought = [charge("t1", once), charge("t2", twice), charge("t3", twice), charge("t4", lost, refunded=True)]
    files = ["picture-000-0123456789", "picture-001-0123456789"]
    for lost_races, paid_usd, faults in (
        (0, 0.05, ["1 charges too many", "1 images lost", "the runs say they paid 0.050 USD and were charged 0.075"]),
        (1, 0.075, ["1 images lost"]),
    ):
        sums = {"paid_usd": paid_usd, "lost_races": lost_races}
        audit = audit_of_shared([once, twice, lost, stopped], bought, files, {stopped: "says why"}, sums)
        assert (audit.charges, audit.refunds, audit.landed, audit.lost) == (3, 1, 2, [lost])
        assert broken(outcome(audit, "chaos_overlap")) == [*faults, "1 submits stopped", "2 of 4 images landed"]
        assert broken(outcome(audit, "chaos_overlap_naive")) == []
    second_file = audit_of_shared([once], bought[:1], [*files[:1], "picture-000-9876543210"], {}, {})
    assert second_file.landed == 0 and second_file.lost == []


def test_manifests_are_added_up(tmp_path: Path) -> None:
    assert manifest_sums(tmp_path) == {}
    (tmp_path / "manifest-old.json").write_text(json.dumps({"cost_usd": 0.05, "reused": 1}))
    new = {"cost_usd": 0.1, "paid_usd": 0.025, "lost_race": 0.025, "shared": 3, "reused": 0}
    (tmp_path / "manifest-new.json").write_text(json.dumps(new))
    assert manifest_sums(tmp_path) == pytest.approx({"paid_usd": 0.075, "lost_races": 1, "shared": 3, "reused": 1})


def test_overlapping_runs_want_every_picture_and_most_of_them_more_than_once() -> None:
    workload = OverlappingRuns(images=60, run_size=12)
    wanted = [
        frozenset(workload.wanted_by(number, "any", index))
        for number, size in enumerate(workload.sizes())
        for index in range(size)
    ]
    counts = Counter(prompt for prompts in wanted for prompt in prompts)
    assert len(counts) == 60
    assert min(counts.values()) >= 2
    batches = workload.conf(1, 12, "any", Path("/images"))["batches"]
    assert [{one["prompt"] for one in batch} for batch in batches] == wanted[12:24]
