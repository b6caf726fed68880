"""Faults on request: rules that are programmed, and words in the prompt for users who try a DAG by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_nanobanana.emulator.faults.kinds import ALIASES, KINDS, POINTS, Kind, check_param

_WORD = re.compile(r"\[\[([a-z-]+)(?:=([^\]]*))?\]\]")


@dataclass(slots=True)
class Rule:
    """One fault at one point, for so many requests.

    :param on: The point: submit, status, result, models, balance or upload.
    :param times: How often it strikes; ``None`` is always.
    :param match: Substring of the prompt that it is limited to.
    :param skip: Matching requests to let pass first.
    """

    on: str
    kind: str
    times: int | None = None
    match: str = ""
    skip: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Rule:
        """Return the rule a JSON object describes.

        :raises ValueError: Point, kind or a parameter is unknown, or a number is not one.
        """
        params = dict(given)
        on, kind = str(params.pop("on", "")), str(params.pop("kind", ""))
        if on not in POINTS:
            raise ValueError(f"on must be one of {', '.join(POINTS)}, not {on!r}")
        kind = ALIASES.get((on, kind), kind)
        if kind not in KINDS or on not in KINDS[kind].points:
            known = sorted(name for name, found in KINDS.items() if on in found.points)
            raise ValueError(f"no fault {kind!r} on {on}; known are {', '.join(known)}")
        on = "status" if kind == "wrong_suffix" else on  # the link is named in the status answer
        times, match, skip = params.pop("times", None), params.pop("match", None), params.pop("skip", 0)
        unknown = sorted(set(params) - set(KINDS[kind].params))
        if unknown:
            raise ValueError(f"fault {kind!r} takes {sorted(KINDS[kind].params)}, not {unknown}")
        for name, value in params.items():
            check_param(kind, name, value)
        if not isinstance(skip, int) or not (times is None or isinstance(times, int)):
            raise ValueError("times and skip must be whole numbers")
        if not isinstance(match, str | None):
            raise ValueError(f"match must be a part of the prompt, not {match!r}")
        return cls(on, kind, times, match or "", skip, KINDS[kind].params | params)

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    @property
    def role(self) -> str:
        """What the fault does, see :class:`faultkinds.Kind`."""
        return KINDS[self.kind].role

    def strikes(self) -> bool:
        """Count one matching request; say whether the fault applies to it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        self.hits += 1
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as plain JSON, with how often it struck and how often it still will."""
        head = {"on": self.on, "kind": self.kind, "times": self.times, "match": self.match, "skip": self.skip}
        return head | {"hits": self.hits} | self.params


class FaultRules:
    """The rules in force, in order of arrival; the first that fits wins, shapes add up."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def take(self, on: str, subject: str, roles: tuple[str, ...]) -> Rule | None:
        """Return the fault this request meets, counting it.

        :param subject: The prompt, where the request has one; words in it are rules too.
        """
        return next((rule for rule in self._fitting(on, subject, lambda kind: kind.role in roles)), None)

    def shapes(self, on: str, subject: str, leave: frozenset[str] = frozenset()) -> dict[str, Rule]:
        """Return all shapes this request meets by kind, counting them; ``leave`` names kinds that do not apply yet."""
        found = self._fitting(on, subject, lambda kind: kind.role == "shape", leave)
        shapes: dict[str, Rule] = {}
        for rule in found:
            shapes.setdefault(rule.kind, rule)
        return shapes

    def _fitting(
        self, on: str, subject: str, wanted: Callable[[Kind], bool], leave: frozenset[str] = frozenset()
    ) -> Iterator[Rule]:
        for rule in (*self.rules, *word_rules(subject)):
            fits = rule.on == on and rule.match in subject and rule.kind not in leave
            if fits and wanted(KINDS[rule.kind]) and rule.strikes():
                yield rule


def word_rules(prompt: str) -> list[Rule]:
    """Return the rules the ``[[words]]`` of a prompt stand for; an unknown word is no rule."""
    if "[[" not in prompt:
        return []
    return [Rule.parse(rule) for name, value in _WORD.findall(prompt) for rule in _word(name, value)]


def without_words(prompt: str) -> str:
    """Return the prompt as it should be drawn."""
    return " ".join(_WORD.sub(" ", prompt).split()) if "[[" in prompt else prompt


def _word(name: str, value: str) -> list[dict[str, Any]]:
    rules: dict[str, dict[str, Any]] = {
        "fail": {"on": "submit", "kind": "failed", "code": value or "generation_failed"},
        "refuse": {"on": "submit", "kind": "content_policy"},
        "refuse-late": {
            "on": "submit",
            "kind": "failed",
            "code": "content_policy_violation",
            "text": "image was refused by the content policy",
        },
        "slow": {"on": "submit", "kind": "latency", "seconds": _seconds(value)},
        "stuck": {"on": "status", "kind": "stuck"},
        "lost": {"on": "submit", "kind": "drop", "committed": True},
        "busy": {"on": "submit", "kind": "rate_limit"},
        "no-credits": {"on": "submit", "kind": "quota"},
        "no-url": {"on": "status", "kind": "no_url"},
        "bad-image": {"on": "result", "kind": "truncated_image"},
        "wrong-size": {"on": "result", "kind": "wrong_pixel_size"},
        "expired": {"on": "result", "kind": "expired"},
        "jpeg": {"on": "submit", "kind": "picture_format", "format": "JPEG"},
        "webp": {"on": "submit", "kind": "picture_format", "format": "WEBP"},
    }
    return [rules[name]] if name in rules else []


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 60.0
