"""ToApisSession: one account at the gateway, as everything below the hook sees it.

The hook makes a session from its connection and hands it down; whoever holds one can ask the gateway, wait and tell the
time, and knows neither the hook nor Airflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_nanobanana.toapis.protocol import balance_call, models_call, status_call, upload_call

if TYPE_CHECKING:
    from airflow_provider_nanobanana.toapis.client import AsyncToApisClient, ToApisClient
    from airflow_provider_nanobanana.toapis.models import ImageTask
    from airflow_provider_nanobanana.toapis.protocol import Upload
    from airflow_provider_nanobanana.toapis.responses import Balance
    from airflow_provider_nanobanana.toapis.retry import RequestRetry
    from airflow_provider_nanobanana.toapis.settings import ToApisSettings


@dataclass(frozen=True)
class ToApisSession:
    """Client, settings and clock of one connection; safe to use from several threads.

    :param settings: What the connection holds.
    :param conn_id: Id of the connection, for tags of metrics.
    :param connect: Returns the one blocking client, built at the first call.
    :param clock: Tells the time, in epoch seconds.
    :param sleep: Waits so many seconds.
    """

    settings: ToApisSettings
    conn_id: str
    connect: Callable[[], ToApisClient]
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    @property
    def client(self) -> ToApisClient:
        """The blocking client.

        Whoever writes ahead of a call takes it before: the first use checks key, host, proxy and certificates.

        :raises ConfigurationError: No call can be sent; nothing was.
        """
        return self.connect()

    def get_task(
        self,
        image_task_id: str,
        sent: Collection[str] | None = None,
        *,
        by_client_id: bool | None = None,
        retry: RequestRetry | None = None,
    ) -> ImageTask:
        """Return an image task as it is now; free.

        :param image_task_id: Its id, or its ``client_business_id``.
        :param sent: The links of its request, where they are known: none of them is a result.
        :param by_client_id: Whether the id is a client id; by default one that this package made is.
        :param retry: Repeats within the call; the client's own when None.
        :raises ImageTaskNotFound: The account has no such image task, or does not show it yet.
        :raises ToApisError: The gateway could not be asked.
        """
        return self.client.call(status_call(image_task_id, sent, by_client_id=by_client_id), retry)

    def upload(self, upload: Upload) -> str:
        """Upload a reference image and return its public URL; free."""
        return self.client.call(upload_call(upload))

    def balance(self, *, of_key: bool = False) -> Balance:
        """Return what the account has left, or what this key may still spend of it; free."""
        return self.client.call(balance_call(of_key=of_key))

    def models(self) -> list[str]:
        """Return the ids of the image models that this key sees; free."""
        return self.client.call(models_call())


async def open_async_client(settings: ToApisSettings, **options: Any) -> AsyncToApisClient:
    """Return the asyncio client of an account; imports and TLS context, 25 ms and more, are made in a thread.

    :param options: Further parameters of :class:`AsyncToApisClient`.
    :raises ConfigurationError: Key, host, proxy or certificates cannot be used; nothing was sent.
    """
    client_class = await asyncio.to_thread(_import_async_client)
    return client_class(settings.base_url, settings.api_key.get_secret_value(), timeout=settings.timeout, **options)


def _import_async_client() -> type[AsyncToApisClient]:
    from airflow_provider_nanobanana.toapis.client import AsyncToApisClient
    from airflow_provider_nanobanana.toapis.http import shared_ssl_context

    shared_ssl_context()
    return AsyncToApisClient
