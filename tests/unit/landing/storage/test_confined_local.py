"""A folder that is read for others: the same as any local one, but that no link is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_nanobanana.landing.storage.base import Storage
from airflow_provider_nanobanana.landing.storage.confined_local import ConfinedLocalStorage
from airflow_provider_nanobanana.landing.storage.local import LocalStorage
from airflow_provider_nanobanana.toapis.errors import StorageFailed

PNG = (".png", ".webp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, and one beside it that links lead to."""
    made = tmp_path / "out" / "sub"
    made.mkdir(parents=True)
    (made.parent / "a.png").write_bytes(b"picture")
    (made / "b.png").write_bytes(b"below")
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "secret.png").write_bytes(b"secret")
    (vault / "secret.json").write_bytes(b"secret")
    (made.parent / "linked").symlink_to(vault)
    (made.parent / "x.png").symlink_to(vault / "secret.png")
    os.mkfifo(made.parent / "pipe.png")
    return made.parent


def told(storage: Storage) -> object:
    return (
        sorted(storage.names()),
        sorted(storage.names("a")),
        sorted(storage.entries()),
        [storage.read(name, 3) for name in ("a.png", "sub/b.png", "none", "a.png/c")],
        [storage.modified(name) for name in ("a.png", "none", "a.png/c")],
        [storage.existing(stem, PNG) for stem in ("a", "none", "pipe", "sub/b")],
        list(storage.below("none").names()),
        sorted(storage.below("sub").names()),
        storage.below("sub").uri("b.png"),
        storage.below("sub").destination.uri(""),
    )


def test_it_says_what_any_local_folder_says(folder: Path) -> None:
    assert told(ConfinedLocalStorage(folder)) == told(LocalStorage(folder))


def asked(storage: Storage, name: str) -> list[object]:
    """Return all that can be found out about a file by its name."""
    stem, dot, suffix = name.rpartition(".")
    found: list[object] = []
    for ask in (
        lambda: storage.read(name, 9),
        lambda: storage.modified(name),
        lambda: storage.existing(stem, (dot + suffix,)) or None,
    ):
        try:
            found.append(ask())
        except StorageFailed:
            found.append(None)
    return found


@pytest.mark.parametrize(
    "name", ["linked/secret.png", "linked/secret.json", "../vault/secret.png", "./a.png", "sub//b.png"]
)
def test_nothing_leads_out_of_it(folder: Path, name: str) -> None:
    assert None not in asked(LocalStorage(folder), name), "so it is there"
    assert asked(ConfinedLocalStorage(folder), name) == [None, None, None]


def test_an_absolute_name_is_none(folder: Path) -> None:
    name = str(folder.parent / "vault" / "secret.png")
    assert None not in asked(LocalStorage(folder), name)
    assert asked(ConfinedLocalStorage(folder), name) == [None, None, None]


def test_a_linked_picture_is_not_there(folder: Path) -> None:
    storage = ConfinedLocalStorage(folder)
    assert storage.existing("x", PNG) == []
    with pytest.raises(StorageFailed):
        storage.read("x.png", 9)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_linked_folder_is_not_listed(folder: Path, depth: int) -> None:
    if depth:
        (folder.parent / "vault" / "claims").mkdir()
        (folder.parent / "vault" / "claims" / "b.json").write_bytes(b"")
    place = ConfinedLocalStorage(folder).below("linked/claims" if depth else "linked")
    with pytest.raises(StorageFailed):
        list(place.names())
    with pytest.raises(StorageFailed):
        list(place.entries())


def test_what_becomes_a_link_after_it_was_looked_at_is_not_followed(folder: Path) -> None:
    storage = ConfinedLocalStorage(folder)
    assert storage.read("a.png", 9) == b"picture"
    folder.rename(folder.with_name("moved"))
    (folder.parent / "vault" / "a.png").write_bytes(b"secret")
    folder.symlink_to(folder.parent / "vault")
    assert asked(storage, "a.png") == [None, None, None]
    with pytest.raises(StorageFailed):
        list(storage.names())


def test_a_folder_above_need_not_be_listable(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list everything")
    folder.parent.chmod(0o311)
    try:
        assert ConfinedLocalStorage(folder).read("a.png", 9) == b"picture"
    finally:
        folder.parent.chmod(0o755)


def test_no_file_stays_open(folder: Path) -> None:
    storage = ConfinedLocalStorage(folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        told(storage)
        asked(storage, "linked/secret.png")
    assert not before or len(os.listdir("/proc/self/fd")) == before
