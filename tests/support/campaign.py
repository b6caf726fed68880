"""How much of a long campaign runs: in ``make test`` a part of each, in ``make campaign`` all of it.

The part is another one each time (a point at random to begin with) where all points together are the whole, so that
many runs of CI come to it; a test that fails names its point or its seed.
"""

from __future__ import annotations

import os

#: Whether everything is wanted, however long it takes: ``NANOBANANA_CAMPAIGN=full``.
WHOLE = os.environ.get("NANOBANANA_CAMPAIGN") == "full"


def of_campaign(part: int, whole: int) -> int:
    """Return a number of ``make test``, or that of the whole campaign: of examples, of rounds, of points per crash."""
    return whole if WHOLE else part
