"""A worker's line to Airflow's supervisor: connections, XComs and task states all go through it."""

from __future__ import annotations

import threading
from typing import Final

#: Held by whichever thread asks Airflow for something. Before 3.3 the line is not made for threads: two that ask at
#: once get each other's answers, or wait for ever (seen on 3.0.6 and 3.1.8; ``CommsDecoder.send`` of 3.3.2 locks it).
SUPERVISOR_LINE: Final = threading.RLock()
