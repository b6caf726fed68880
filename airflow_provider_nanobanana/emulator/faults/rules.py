"""Faults on request: rules that are programmed, and words in the prompt for users who try a DAG by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from airflow_provider_nanobanana.emulator.faults.kinds import ALIASES, KINDS, Kind, RuleFields
from airflow_provider_nanobanana.emulator.settings import validated

_RULE_FIELDS = TypeAdapter(RuleFields)
_WORD = re.compile(r"\[\[([a-z-]+)(?:=([^\]]*))?\]\]")
#: The rules that words in a prompt stand for.
WORD_RULES: dict[str, dict[str, Any]] = {
    "fail": {"on": "submit", "kind": "failed"},  # [[fail=CODE]]
    "refuse": {"on": "submit", "kind": "content_policy"},
    "refuse-late": {
        "on": "submit",
        "kind": "failed",
        "code": "content_policy_violation",
        "text": "image was refused by the content policy",
    },
    "slow": {"on": "submit", "kind": "latency"},  # [[slow=SECONDS]]
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


@dataclass(slots=True)
class Rule:
    """One fault at one point, for so many requests.

    :param on: The point: submit, status, result, models, balance or upload.
    :param times: How often it applies; ``None`` is always.
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
    def parse(cls, given: object) -> Rule:
        """Return the rule a JSON object describes.

        :raises ValueError: Point or kind is unknown, a field is unknown or its value could not be played.
        """
        fields = validated(_RULE_FIELDS, given)
        params: dict[str, Any] = dict(fields)
        on = params.pop("on", "")
        name = params.pop("kind", "")
        name = ALIASES.get((on, name), name)
        kind = KINDS.get(name)
        if kind is None or on not in kind.points:
            known = sorted(name for name, found in KINDS.items() if on in found.points)
            raise ValueError(f"no fault {name!r} on {on!r}; known are {', '.join(known)}")
        rule = cls(
            on="status" if name == "wrong_suffix" else on,  # the link is named in the status answer
            kind=name,
            times=params.pop("times", None),
            match=params.pop("match", None) or "",
            skip=params.pop("skip", 0),
        )
        for parameter, value in params.items():
            if parameter not in kind.params:
                raise ValueError(f"fault {name!r} takes {sorted(kind.params)}, not {parameter!r}")
            allowed = kind.params[parameter]
            if isinstance(allowed, tuple) and value not in allowed:
                raise ValueError(f"{parameter} of fault {name!r} must be one of {', '.join(allowed)}, not {value!r}")
        rule.params = kind.defaults | params
        return rule

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    @property
    def definition(self) -> Kind:
        """The definition of the rule's kind."""
        return KINDS[self.kind]

    def applies(self) -> bool:
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
        """Return the rule as plain JSON."""
        fields = asdict(self)
        del fields["params"]
        return fields | self.params


#: The shapes that one request met, by kind.
Shapes = dict[str, Rule]


def parameter(shapes: Shapes, kind: str, name: str, default: Any) -> Any:
    """Return a parameter of a shape, ``default`` where the request did not meet that shape."""
    return shapes[kind][name] if kind in shapes else default


class FaultRules:
    """The rules in force, in order of arrival; the first that fits wins, shapes add up."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add(self, given: dict[str, Any]) -> None:
        """Add one rule behind those in force.

        :raises ValueError: It is not a rule, see :meth:`Rule.parse`.
        """
        self.rules.append(Rule.parse(given))

    def replace(self, given: Any) -> None:
        """Put a list of rules in place of those in force; a list that does not parse changes nothing.

        :raises ValueError: It is no list, or one of it is not a rule.
        """
        if not isinstance(given, list):
            raise ValueError("send a list of rules, each an object with on, kind and parameters")
        self.rules = [Rule.parse(rule) for rule in given]

    def clear(self) -> None:
        """Remove all rules."""
        self.rules = []

    def as_list(self) -> list[dict[str, Any]]:
        """Return the rules as plain JSON, each with how often it applied (``hits``) and still will (``times``)."""
        return [rule.as_dict() for rule in self.rules]

    def take(self, on: str, subject: str, roles: tuple[str, ...]) -> Rule | None:
        """Return the fault this request meets, counting it.

        :param subject: The prompt, where the request has one; words in it are rules too.
        """
        return next(self._fitting(on, subject, roles), None)

    def shapes(self, on: str, subject: str, state: str = "") -> Shapes:
        """Return all shapes this request meets by kind, counting them.

        :param state: The image task's, where there is one; shapes of another state do not apply yet.
        """
        shapes: Shapes = {}
        for rule in self._fitting(on, subject, ("shape",), state):
            shapes.setdefault(rule.kind, rule)
        return shapes

    def _fitting(self, on: str, subject: str, roles: tuple[str, ...], state: str = "") -> Iterator[Rule]:
        for rule in (*self.rules, *word_rules(subject)):
            fits = rule.on == on and rule.match in subject and rule.definition.role in roles
            if fits and rule.definition.state in ("", state) and rule.applies():
                yield rule


def word_rules(prompt: str) -> list[Rule]:
    """Return the rules the ``[[words]]`` of a prompt stand for; an unknown word is no rule."""
    rules = []
    for word, value in _WORD.findall(prompt):
        if word not in WORD_RULES:
            continue
        rule = Rule.parse(WORD_RULES[word])
        if word == "fail" and value:
            rule.params["code"] = value
        if word == "slow":
            rule.params["seconds"] = _seconds(value)
        rules.append(rule)
    return rules


def without_words(prompt: str) -> str:
    """Return the prompt as it should be drawn."""
    return " ".join(_WORD.sub(" ", prompt).split())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 60.0
    return seconds if 0 <= seconds < math.inf else 60.0
