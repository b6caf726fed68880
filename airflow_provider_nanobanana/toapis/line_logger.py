"""``LineLogger``: the log of a module whose every line the log pane of Airflow shows whole."""

from __future__ import annotations

import logging
from typing import Any

from airflow_provider_nanobanana.toapis.text_lines import fold


class LineLogger:
    """Logs what a module has to say, in lines of at most ``LINE_WIDTH`` characters (:func:`~.text_lines.fold`).

    :param name: ``__name__`` of the module.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *values: object, **options: Any) -> None:
        """Log for whoever looks into one case."""
        self._log(logging.DEBUG, message, values, options)

    def info(self, message: str, *values: object, **options: Any) -> None:
        """Log what goes well."""
        self._log(logging.INFO, message, values, options)

    def warning(self, message: str, *values: object, **options: Any) -> None:
        """Log what somebody should know of."""
        self._log(logging.WARNING, message, values, options)

    def error(self, message: str, *values: object, **options: Any) -> None:
        """Log what somebody has to do something about."""
        self._log(logging.ERROR, message, values, options)

    def log(self, level: int, message: str, *values: object, **options: Any) -> None:
        """Log at a level of :mod:`logging`."""
        self._log(level, message, values, options)

    def _log(self, level: int, message: str, values: tuple[object, ...], options: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            text = message % values if values else message
            # The line of the program that is named is that of the caller's caller.
            self._logger.log(level, "%s", fold(text, indent="  "), stacklevel=3, **options)
