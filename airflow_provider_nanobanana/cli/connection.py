"""``CommandLineHook``: a connection as a command line finds it, where no task and no supervisor is around."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_nanobanana.exceptions import airflow_errors
from airflow_provider_nanobanana.hooks.nanobanana import NanoBananaHook
from airflow_provider_nanobanana.toapis.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


class CommandLineHook(NanoBananaHook):
    """A hook whose connection comes from all of Airflow's secrets backends.

    Outside a task the hooks of Airflow 3.1 and later look into the environment and the configured secrets backend
    alone, and not into the metadata database (tried on 3.0.6, 3.1.8 and 3.3.2).
    """

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return a connection from the environment, a secrets backend or the metadata database.

        :raises NanoBananaFailException: None of them has it.
        """
        # Loads SQLAlchemy and all models: seconds.
        from airflow.models.connection import Connection as StoredConnection
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        with airflow_errors():
            try:
                return StoredConnection.get_connection_from_secrets(conn_id)
            except AirflowNotFoundException:
                raise ConfigurationError(
                    f"There is no connection {conn_id!r}: neither the environment (AIRFLOW_CONN_{conn_id.upper()}) nor "
                    "a secrets backend nor the metadata database of this Airflow (AIRFLOW_HOME) has it."
                ) from None
