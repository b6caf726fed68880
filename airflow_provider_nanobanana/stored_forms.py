"""``StoredForm``: the version of each thing that outlives a process, and the one rule for what another version wrote.

Every stored form carries a whole number as its version. Within a version keys are only ever added, and whoever does not
know a key ignores it: so only what may be missing, without an image bought twice or lost, is added that way. Whatever
changes what stands there already, a new word for a state or an outcome too, is a new version. Older versions are read.
A newer one is refused, which is never the same as "nothing was bought", and what holds it is not written over.

The forms, where each is, and what is done with an older and a newer one: ``docs/durability.md``, "Upgrades".
``tests/integration/upgrade`` keeps what each release wrote, and resumes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.toapis.errors import TransientFailure

#: What to do first where a newer form stops an attempt.
INSTALL_NEWER: Final = "Install the newer provider version again, then clear this task."


@dataclass(frozen=True)
class StoredForm:
    """One kind of thing that is stored.

    :param name: What it is called in messages and in ``docs/durability.md``, "Upgrades".
    :param version: The one that is written, and the highest that is read.
    """

    name: str
    version: int = 1

    def is_newer(self, version: Any) -> bool:
        """Whether a stored version is one that only a later release knows."""
        return type(version) is int and version > self.version

    def refuse_newer(self, version: Any, where: str) -> None:
        """Stop where a later release wrote something, before anything is sent or written.

        :param version: What is stored; anything but a higher whole number passes.
        :param where: What holds it, as the subject of a sentence.
        :raises TransientFailure: It is newer. A retry may run where the newer version is installed.
        """
        if self.is_newer(version):
            raise TransientFailure(
                f"{where} {self.said(version)}; nothing was sent now, and nothing was written over. What was bought "
                "stays paid. Install the newer version wherever tasks run: a retry, or a clear, then goes on from "
                "there.",
                charged="unknown",
                first_step=INSTALL_NEWER,
            )

    def said(self, version: Any) -> str:
        """Return what is said of a newer version, as the predicate of a sentence."""
        return (
            f"was written by a newer version of this provider ({self.name}, form {version}; this one knows "
            f"{self.version})"
        )


LEDGER: Final = StoredForm("ledger")
INPUT: Final = StoredForm("list of requests")
CHECKPOINT: Final = StoredForm("checkpoint")
DRY_RUN: Final = StoredForm("dry run")
CLAIM: Final = StoredForm("claim")
BOOK: Final = StoredForm("book of purchases")
PICTURE_VERSION: Final = StoredForm("version of a picture")
REJECTION: Final = StoredForm("rejection")
MANIFEST: Final = StoredForm("manifest", 2)
GALLERY_POINTER: Final = StoredForm("gallery pointer")
SUBMIT_REQUEST: Final = StoredForm("request of a submit")
REVIEW: Final = StoredForm("review")
WAIT: Final = StoredForm("wait")
#: What a sensor has counted in metrics.
COUNTED: Final = StoredForm("counted results")
RATE_STATE: Final = StoredForm("rate limit", 2)

#: All of them.
FORMS: Final = (
    *(LEDGER, INPUT, CHECKPOINT, DRY_RUN, CLAIM, BOOK, PICTURE_VERSION, REJECTION),
    *(MANIFEST, GALLERY_POINTER, SUBMIT_REQUEST, REVIEW, WAIT, COUNTED, RATE_STATE),
)


def readable_event(event: Any) -> Mapping[str, Any]:
    """Return what a trigger said; nothing where it is no event of ours, or one that only a later release understands.

    Then it is a wake-up and no more: whoever is woken asks for itself.
    """
    return event if isinstance(event, Mapping) and not WAIT.is_newer(event.get("version")) else {}
