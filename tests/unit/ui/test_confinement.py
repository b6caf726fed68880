"""What may be read for a task instance: only its own destination, or what the settings name."""

from __future__ import annotations

import pytest

from airflow_provider_nanobanana.ui.confinement import (
    LOCAL,
    NOT_RENDERED,
    OTHER_STORE,
    OUTSIDE,
    Folder,
    ManifestPlace,
    NotReadable,
    PicturePlace,
    manifest_place,
    parse_folder,
    parse_roots,
    picture_place,
)

NAME = "manifest-shop-run-pictures-0a1b2c3d.json"
FOLDER = Folder("s3", "team@bucket", ("a", "b"))
#: Ways out of a folder, written behind a URI of it or instead of one.
ESCAPES = [
    "s3://team@bucket/a/b/../c/{}",
    "s3://team@bucket/a/b/./../c/{}",
    "s3://team@bucket/a/b/%2e%2e/c/{}",
    "s3://team@bucket/a/b/%2E%2E%2Fc/{}",
    "s3://team@bucket/a/b%2f..%2f/{}",
    "s3://team@bucket/a/b/%252e%252e/{}",
    "s3://team@bucket/a/b\\..\\c/{}",
    "s3://team@bucket/a//b/{}",
    "s3://team@bucket//a/b/{}",
    "s3://team@bucket/a/b/ /{}",
    "s3://team@bucket/a/b/.. /{}",
    "s3://team@bucket/a/b\n/{}",
    "s3://team@bucket/a/b\u2028/{}",
    "s3://team@bucket/a/b?x=/{}",
    "s3://team@bucket/a/b#/{}",
    "s3://team@bucket/a/b-other/{}",
    "s3://team@bucket/a/{}",
    "s3://team@bucket/{}",
    "s3://team@bucket2/a/b/{}",
    "s3://other@bucket/a/b/{}",
    "s3://bucket/a/b/{}",
    "s3://team@bucket@evil/a/b/{}",
    "s3://evil@team@bucket/a/b/{}",
    "s3://team:x@bucket/a/b/{}",
    "s3://TEAM@bucket/a/b/{}",
    "s3://team@BUCKET/a/b/{}",
    "s3://team@bucket/A/b/{}",
    "s3a://team@bucket/a/b/{}",
    "gs://team@bucket/a/b/{}",
    "file:///a/b/{}",
    "file://team@bucket/a/b/{}",
    "local:///etc/{}",
    "/etc/{}",
    "a/b/{}",
    "{}",
    "http://169.254.169.254/latest/meta-data/{}",
    "https://evil.example/a/b/{}",
    "ftp://team@bucket/a/b/{}",
    "memory://team@bucket/a/b/{}",
    "zip://a/b/{}::s3://team@bucket/x.zip",
    "simplecache::s3://team@bucket/a/b/{}",
    "s3://team@bucket/a/b/{}::file:///etc/passwd",
    "s3:/team@bucket/a/b/{}",
    "s3:team@bucket/a/b/{}",
    "://team@bucket/a/b/{}",
    "s3://",
    "s3:///a/b/{}",
    "",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_way_out_of_the_rendered_destination(escape: str) -> None:
    with pytest.raises(NotReadable):
        manifest_place(escape.format(NAME), FOLDER.uri, [])
    assert picture_place(escape.format("x.png"), FOLDER) is None


@pytest.mark.parametrize(
    "escape", [escape for escape in ESCAPES if not escape.startswith(("s3://team@bucket/a/b-", "s3://team@bucket/a/{"))]
)
def test_no_way_out_of_a_root(escape: str) -> None:
    with pytest.raises(NotReadable):
        manifest_place(escape.format(NAME), None, [Folder("s3", "team@bucket", ("a",))])


def test_the_destination_as_it_may_be_written() -> None:
    for destination in (FOLDER.uri, f"{FOLDER.uri}/", f"{FOLDER.uri}//", f" {FOLDER.uri} ", "S3://team@bucket/a/b"):
        assert manifest_place(f"{FOLDER.uri}/{NAME}", destination, []) == ManifestPlace(FOLDER, NAME)


@pytest.mark.parametrize(
    "name",
    [
        "x.json",
        "manifest-.json",
        "manifest-a.png",
        "manifest-a.json.bak",
        "manifest-a b.json",
        "manifest-é.json",
        "",
        ".",
        "..",
    ],
)
def test_only_manifests(name: str) -> None:
    with pytest.raises(NotReadable):
        manifest_place(f"{FOLDER.uri}/{name}", FOLDER.uri, [])


def test_nothing_of_ours_below_a_root() -> None:
    with pytest.raises(NotReadable):
        manifest_place(f"{FOLDER.uri}/.nanobanana/index/{NAME}", None, [FOLDER])


def test_a_root_holds_what_is_below_it_and_no_neighbour() -> None:
    roots = parse_roots("s3://team@bucket/a, file:///data/media")
    for folder in ("s3://team@bucket/a", "s3://team@bucket/a/x/y", "file:///data/media", "/data/media/2026"):
        assert manifest_place(f"{folder}/{NAME}", None, roots).name == NAME
    for folder in ("s3://team@bucket/ab", "file:///data/media-2", "/data", "s3://bucket/a"):
        with pytest.raises(NotReadable, match="keeps no rendered destination"):
            manifest_place(f"{folder}/{NAME}", None, roots)


def test_why_it_may_not() -> None:
    def words(uri: str, destination: str | None) -> str:
        with pytest.raises(NotReadable) as refused:
            manifest_place(f"{uri}/{NAME}", destination, [])
        return str(refused.value)

    assert words("file:///data/media", "/data/media") == LOCAL
    assert words("/data/media", "file:///data/media/") == LOCAL
    assert words("sftp://team@host/a", "sftp://team@host/a") == OTHER_STORE
    assert words("s3://team@bucket/a", None) == NOT_RENDERED
    assert words("s3://team@bucket/a", "s3://team@bucket/b") == OUTSIDE
    # What a task rendered is no text that can be trusted to be a folder either.
    for destination in ("", "***", "media", "s3://", "s3://team@bucket/a/..", "http://x/y"):
        assert words("s3://team@bucket/a", destination) == OUTSIDE


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "data", "memory", "zip", "github", "reference"])
def test_some_storages_are_never_read_whoever_names_them(scheme: str) -> None:
    with pytest.raises(NotReadable):
        parse_roots(f"{scheme}://host/a")


def test_a_root_may_be_any_other_storage() -> None:
    (root,) = parse_roots('["sftp://team@host/a"]')
    assert manifest_place(f"sftp://team@host/a/b/{NAME}", None, [root]).folder.uri == "sftp://team@host/a/b"


@pytest.mark.parametrize(
    "setting", ["media", "/data/..", '["/data"', '[["/data"]]', "s3://a:b@bucket", "/data,http://x"]
)
def test_a_setting_that_is_none(setting: str) -> None:
    with pytest.raises(NotReadable):
        parse_roots(setting)


def test_a_setting_that_is_empty() -> None:
    assert parse_roots(" ") == parse_roots("[]") == parse_roots(" , ") == []


def test_pictures_beside_the_manifest_and_in_its_quarantine() -> None:
    assert picture_place(f"{FOLDER.uri}/SKU-1-v2.png", FOLDER) == PicturePlace(False, "SKU-1-v2.png")
    assert picture_place(f"{FOLDER.uri}/.nanobanana/quarantine/x.jpg", FOLDER) == PicturePlace(True, "x.jpg")
    for uri in (
        f"{FOLDER.uri}/.nanobanana/x.png",
        f"{FOLDER.uri}/.nanobanana/quarantine/y/x.png",
        f"{FOLDER.uri}/.nanobanana/thumbs/x.webp",
        f"{FOLDER.uri}/c/x.png",
        f"{FOLDER.uri}/x.svg",
        f"{FOLDER.uri}/x.png.json",
        f"{FOLDER.uri}/.x.png",
        f"{FOLDER.uri}/-x.png",
        f"{FOLDER.uri}/x.png\n",
        f"{FOLDER.uri}/{'x' * 200}.png",
        f"{FOLDER.uri}/",
        FOLDER.uri,
        None,
        7,
        ["x.png"],
        {"uri": "x.png"},
    ):
        assert picture_place(uri, FOLDER) is None, uri


def test_what_is_opened_is_what_was_checked() -> None:
    for uri in ("file:///data/a", "/data/a/", "file:///data//a", "local:///data/a"):
        assert parse_folder(uri).uri == "file:///data/a"
    assert parse_folder("s3://arn:aws:s3:eu-central-1:1:accesspoint/name").parts == ("name",)
    assert Folder("s3", "b", ("a",)).holds(Folder("s3", "b", ("a", "b")))
    assert not Folder("s3", "b", ("a",)).holds(Folder("s3", "b", ()))
