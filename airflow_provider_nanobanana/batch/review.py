"""The review of images by a person: what the form shows, and what an answer decides for each image; no I/O.

An image stands in the form under its key (``file_names.image_key``). What was not asked about is not decided: neither
a picture that came while the form waited nor another one that lies under the same name since.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_nanobanana.batch.gallery_paths import gallery_path, thumbnail_path
from airflow_provider_nanobanana.landing.file_names import image_key
from airflow_provider_nanobanana.stored_forms import REVIEW
from airflow_provider_nanobanana.toapis.errors import TransientFailure
from airflow_provider_nanobanana.toapis.redaction import one_line

#: One image: ``uri``, and what else its task said of it; plain JSON.
Record = dict[str, Any]

APPROVE_SELECTED: Final = "Approve selected"
APPROVE_ALL: Final = "Approve all"
REJECT_ALL: Final = "Reject all"
#: Three: of four options Airflow 3.1.8 offers none.
OPTIONS: Final = (APPROVE_SELECTED, APPROVE_ALL, REJECT_ALL)
#: The fields of the form: a list of keys, and a text.
APPROVED: Final = "approved"
COMMENT: Final = "comment"

#: Who decided where nobody did.
TIME_LIMIT: Final = "nobody, the time limit passed"

#: Digits of a picture's hash that tell it from another one under the same name.
_HASH_DIGITS: Final = 16
#: Pictures in the form itself.
_MOST_SHOWN: Final = 6
#: Characters of a prompt beside its picture.
_LONGEST_PROMPT: Final = 80
#: Each may be escaped by a backslash (CommonMark 0.31, section 2.4).
_PUNCTUATION: Final = re.compile(r"([!-/:-@\[-`{-~])")
_AGAIN: Final = "Nothing was decided, and nothing was bought. The next attempt asks again."


@dataclass(frozen=True)
class Decision:
    """What was decided.

    :param asked: The pictures that it is about, from :func:`pictures`.
    :param approved: Keys of those that are approved.
    :param by: Who decided; None where the time limit did.
    """

    asked: Mapping[str, str]
    approved: frozenset[str]
    by: str | None
    comment: str | None

    @property
    def rejected(self) -> frozenset[str]:
        """Keys of those that are rejected: all others."""
        return frozenset(self.asked) - self.approved

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any], asked: Mapping[str, str]) -> Decision:
        """Return what an answer decides.

        :param answer: ``chosen_options``, ``params_input`` and ``responded_by_user``, as Airflow gives them.
        :param asked: What the form was about, from :func:`pictures`; what else is ticked decides nothing.
        :raises TransientFailure: It decides nothing; Airflow before 3.3 accepts any answer.
        """
        chosen = answer.get("chosen_options")
        option = chosen[0] if isinstance(chosen, (list, tuple)) and len(chosen) == 1 else chosen
        if option not in OPTIONS:
            raise TransientFailure(
                f"The answer is {option!r:.80}, which is none of {', '.join(map(repr, OPTIONS))}. {_AGAIN}",
                charged="no",
            )
        fields = answer.get("params_input") or {}
        ticked = _ticked(fields.get(APPROVED)) & frozenset(asked) if option == APPROVE_SELECTED else frozenset()
        if option == APPROVE_SELECTED and not ticked:
            raise TransientFailure(
                f"{APPROVE_SELECTED!r} was chosen and none of the {len(asked):,} images was selected; {REJECT_ALL!r} "
                f"rejects all of them. {_AGAIN}",
                charged="no",
            )
        approved = frozenset(asked) if option == APPROVE_ALL else ticked
        comment = fields.get(COMMENT)
        comment = comment if isinstance(comment, str) and comment.strip() else None
        return cls(asked, approved, _person(answer), comment)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Decision:
        """Return a decision as :meth:`plain` returned it.

        :raises TransientFailure: A later release wrote it.
        """
        REVIEW.refuse_newer(plain.get("version"), "What was decided")
        return cls(plain["asked"], frozenset(plain["approved"]), plain["by"], plain["comment"])

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON, for a deferral."""
        return {
            "version": REVIEW.version,
            "asked": dict(self.asked),
            "approved": sorted(self.approved),
            "by": self.by,
            "comment": self.comment,
        }

    def still_there(self, images: Sequence[Record]) -> dict[str, Record]:
        """Return those of some images that it is about, by key: the very pictures that were asked about.

        Of one whose hash was not known then, or is not now, the name decides.
        """
        given = {image_key(image["uri"]): image for image in images}
        digits = pictures(images)
        return {key: given[key] for key in given if key in self.asked and _alike(digits[key], self.asked[key])}

    def in_words(self) -> str:
        """Return who decided what, for log and errors."""
        comment = f" ({one_line(self.comment)})" if self.comment else ""
        return f"{self.by or TIME_LIMIT}: {len(self.approved):,} approved, {len(self.rejected):,} rejected{comment}"


def _ticked(value: Any) -> frozenset[str]:
    """Return the keys that are ticked.

    :raises TransientFailure: It is no list of texts.
    """
    given = [] if value is None else value
    if isinstance(given, (list, tuple)) and all(isinstance(key, str) for key in given):
        return frozenset(given)
    raise TransientFailure(
        f"{APPROVED} is a list of the keys of images, not {value!r:.80}. {_AGAIN}",
        charged="no",
    )


def _person(answer: Mapping[str, Any]) -> str | None:
    user = answer.get("responded_by_user")
    if isinstance(user, Mapping):
        return str(user.get("name") or user.get("id") or "") or None
    return None


def pictures(images: Sequence[Record]) -> dict[str, str]:
    """Return which picture each image is, by key: the beginning of its hash, empty where no hash is known."""
    return {image_key(image["uri"]): str(image.get("sha256") or "")[:_HASH_DIGITS] for image in images}


def _alike(one: str, other: str) -> bool:
    return one == other or "" in (one, other)


def labels(images: Sequence[Record]) -> dict[str, str]:
    """Return what people call each image, by key: name, variant, version and the beginning of the prompt.

    Two that would be called the same have their file's name too.
    """
    called = {image_key(image["uri"]): _label(image) for image in images}
    times = Counter(called.values())
    for image in images:
        key = image_key(image["uri"])
        if times[called[key]] > 1:
            called[key] = f"{called[key]} ({_file(image)})"
    return called


def _label(image: Record) -> str:
    request, version = image.get("request"), image.get("version")
    prompt = one_line(image.get("prompt"), limit=_LONGEST_PROMPT)
    # A download knows no row, and its files may be named by ids.
    unnamed = f"#{request}" if request is not None else "" if prompt else _file(image)
    parts = [
        "/".join(str(part) for part in (image.get("name") or unnamed, image.get("variant")) if part),
        f"version {version}" if isinstance(version, int) and version > 1 else "",
        prompt,
        f"suspect: {', '.join(map(str, image['suspect']))}" if image.get("suspect") else "",
    ]
    return one_line(" · ".join(filter(None, parts)), limit=2 * _LONGEST_PROMPT)


def _file(image: Record) -> str:
    return str(image["uri"]).rpartition("/")[2]


def shown_first(images: Sequence[Record]) -> list[Record]:
    """Return the images whose pictures are in the form itself."""
    return [*images[:_MOST_SHOWN]]


def form_text(
    intro: str | None,
    images: Sequence[Record],
    called: Mapping[str, str],
    *,
    run: Mapping[str, Any],
    places: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the text of the form, in Markdown.

    :param intro: What the DAG's author says, Markdown as it is written.
    :param called: From :func:`labels`.
    :param run: ``dag_id``, ``run_id``, ``task_id`` and ``map_index`` of the review.
    :param places: For each URI the task instance whose manifest has the image, as ``thumbnail_path`` takes it; of one
        that is missing there is no picture.
    """
    shown = shown_first(images)
    gallery = gallery_path(run["dag_id"], run["run_id"], run["task_id"], run["map_index"])
    many = "1 image" if len(images) == 1 else f"{len(images):,} images"
    lines = [
        f"**{many}** to review. [Open the gallery]({gallery}) to see and tick all of them there, or select them below.",
        f"With “{APPROVE_SELECTED}” the others are rejected. A rejected picture is not used again.",
    ]
    pictures, names = [], []
    for image in shown:
        label = escape_markdown(called[image_key(image["uri"])])
        names.append(f"* {label}")
        if place := places.get(image["uri"]):
            address = thumbnail_path(place, image["uri"], image.get("sha256"))
            pictures.append(f"[![{label}]({address})]({gallery})")
    more = len(images) - len(shown)
    if more:
        names.append(f"* and {more:,} more, in the gallery")
    return "\n\n".join(filter(None, [intro, "\n".join(lines), " ".join(pictures), "\n".join(names)]))


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))
