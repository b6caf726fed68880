"""What is kept is bounded in number, weight and age."""

from __future__ import annotations

import math

from airflow_provider_nanobanana.ui.kept import Kept


def fail() -> bytes:
    raise KeyError


def there(kept: Kept[bytes]) -> str:
    found = ""
    for name in "abcde":
        try:
            kept.get(name, math.inf, fail)
        except KeyError:
            continue
        found += name
    return found


def test_the_last_used_ones_stay_as_long_as_there_is_room() -> None:
    kept = Kept[bytes](3, 100, len)
    for name in "abcd":
        assert kept.get(name, math.inf, lambda: bytes(10)) == bytes(10)
    assert there(kept) == "bcd"
    kept.get("b", math.inf, fail)
    kept.get("e", math.inf, lambda: bytes(85))
    assert there(kept) == "be"
    kept.get("e", 0, lambda: b"")
    kept.get("a", math.inf, lambda: bytes(85))
    assert there(kept) == "abe"
    assert kept.get("a", 0, lambda: bytes(101)) == bytes(101) and there(kept) == "", "nothing above the weight stays"
    kept.get("c", math.inf, lambda: bytes(100))
    kept.clear()
    assert there(kept) == "" and kept.get("c", math.inf, lambda: bytes(100)) and there(kept) == "c"
