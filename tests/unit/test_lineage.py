"""What is told of files as lineage: no connection id, no signature, no flood; and nothing that fails a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_nanobanana import lineage
from airflow_provider_nanobanana.batch.task_lineage import LandedImage, TaskLineage
from tests.support.lineage import Collector


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    return Collector.in_place_of_airflows(monkeypatch)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("s3://my_aws@bucket/a folder/x.png", "s3://bucket/a folder/x.png"),
        ("S3A://bucket/x", "s3://bucket/x"),
        ("gcs://conn@bucket/x", "gs://bucket/x"),
        ("s3://bucket/x?versionId=secret", "s3://bucket/x"),
        ("file:///data/x.png", "file:///data/x.png"),
        ("/data/x.png", "file:///data/x.png"),
        ("https://user:pw@host/x.png?X-Amz-Signature=s#part", "https://host/x.png"),
        ("https://user:p/w@host/x.png", "https://host/x.png"),
        ("s3://user:p/w@bucket/x.png", "s3://bucket/x.png"),
        ("hdfs://conn@node:8020/x@2.png", "hdfs://node:8020/x@2.png"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/a/x@2.png", "s3://arn:aws:s3:eu-west-1:1:accesspoint/a/x@2.png"),
        ("data:image/png;base64,AAAA", None),
    ],
)
def test_a_uri_says_where_and_not_how(given: str, plain: str | None) -> None:
    assert lineage.plain_uri(given) == plain


def test_an_asset_of_airflow_is_ascii_and_keeps_its_name() -> None:
    assert lineage.asset_uri("s3://c@bucket/küche/#1 a.png") == "s3://bucket/k%C3%BCche/%231%20a.png"
    assert lineage.asset_uri("s3://bucket/" + "x" * 1_500) is None


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("s3://bucket/a/b.png", ("s3://bucket", "a/b.png")),
        ("s3://bucket", ("s3://bucket", "/")),
        ("file:///data/b.png", ("file", "/data/b.png")),
        ("https://host/b.png", ("https://host", "b.png")),
    ],
)
def test_a_dataset_is_named_as_openlineage_names_it(uri: str, named: tuple[str, str]) -> None:
    assert lineage.dataset_name(uri) == named


def test_each_file_is_told_once(collector: Collector) -> None:
    lineage.report(None, inputs=lambda: ["s3://c@b/r.png"] * 2, outputs=lambda: ["s3://c@b/1.png", "s3://b/2.png"])
    assert (collector.inputs, collector.outputs) == (["s3://b/r.png"], ["s3://b/1.png", "s3://b/2.png"])


def test_of_many_files_their_folder_is_told(collector: Collector) -> None:
    lineage.report(None, outputs=lambda: [f"s3://c@b/folder/{number}.png" for number in range(20_000)])
    assert collector.outputs == ["s3://b/folder"]


def test_where_nobody_reads_nothing_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "reads_hook_lineage", lambda: False)

    def asked() -> Iterator[str]:
        raise AssertionError("asked")

    lineage.report(None, outputs=asked)


def test_what_goes_wrong_costs_the_lineage_alone(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**kwargs: Any) -> None:
        raise OSError("the collector is gone")

    monkeypatch.setattr(collector, "add_output_asset", broken)
    lineage.report(None, outputs=lambda: ["s3://b/1.png"])


@pytest.mark.parametrize("others", [0, 60])
def test_an_image_of_which_little_is_known_costs_no_other_its_facets(others: int) -> None:
    """Of further images a ledger that had no room for more keeps where they are."""
    pytest.importorskip("airflow.providers.openlineage")
    from airflow_provider_nanobanana.batch.openlineage import operator_lineage

    known = {"id": "t", "index": 0, "sha256": "a" * 64, "bytes": 3, "format": "png", "width": 1, "height": 1}
    unknown = dict.fromkeys(("sha256", "bytes", "width", "height"))
    records: list[dict[str, Any]] = [{**known, "uri": f"s3://c@b/f/{number}.png"} for number in range(others + 1)]
    records.append({**known, **unknown, "uri": "s3://c@b/f/more.png", "index": 1})
    told = operator_lineage(TaskLineage("generate", images=[LandedImage(record) for record in records])).outputs
    statistics = [one.outputFacets["outputStatistics"] for one in told]
    sizes = [(one.fileCount, one.size) for one in statistics]
    if others:
        assert sizes == [(62, None)]
    else:
        assert sizes == [(1, 3), (1, None)]
        assert [set(one.facets) for one in told] == [{"version", "nanobanana_image"}, set()]
