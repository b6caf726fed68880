"""``GalleryPlugin``: what Airflow's own interface shows of this provider, and the web application behind it.

Loaded by each Airflow process, those of tasks too: so nothing heavy is imported here. The web application is imported
with the first request that reaches it. Airflow leaves out all entries of a plugin where it does not know one of their
destinations, so each is registered only where it is known; below 3.1.1, where pages have no session cookie, nothing is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import quote, urlparse

from airflow.providers.common.compat.sdk import AirflowPlugin, conf
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_nanobanana import __version__
from airflow_provider_nanobanana.batch.gallery_paths import PREFIX
from airflow_provider_nanobanana.ui.links import OPERATOR_NAMES, REVIEW_NAME, GalleryLink

#: The first Airflow whose pages have a session cookie, and the first that knows the later destinations.
_FIRST: Final = (3, 1, 1)
_SCOPED_TABS: Final = (3, 4, 0)

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LazyApp:
    """The web application as Airflow mounts it: imported, in a thread, when the first request comes."""

    _app: Any = None

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request (ASGI)."""
        if LazyApp._app is None:
            import anyio.to_thread

            LazyApp._app = await anyio.to_thread.run_sync(_load_app)
        await LazyApp._app(scope, receive, send)


def _load_app() -> Any:
    from airflow_provider_nanobanana.ui.app import app

    return app


def plugin_entries(version: tuple[int, int, int], base_path: str, *, switched_on: bool) -> dict[str, list[Any]]:
    """Return what the plugin registers, by the names of Airflow's plugin attributes.

    :param version: Airflow's.
    :param base_path: The path of ``[api] base_url``, without a slash at its end.
    :param switched_on: ``[nanobanana] gallery``.
    """
    if not switched_on or version < _FIRST:
        return {}
    tabs = [
        _react_app(base_path, "Images", "dag_run", "run"),
        _react_app(base_path, "Image spend", "nav", "spend", category="browse"),
    ]
    if version >= _SCOPED_TABS:
        # Before, a tab of task instances would stand on those of every operator.
        scope = {"operator_name": [*OPERATOR_NAMES, REVIEW_NAME]}
        tabs.append(_react_app(base_path, "Images", "task_instance", "task", applies_to=scope))
        tabs.append(_react_app(base_path, "Images", "asset", "asset"))
    return {
        "fastapi_apps": [{"app": LazyApp(), "url_prefix": PREFIX, "name": "Nano Banana"}],
        "react_apps": tabs,
        "operator_extra_links": [GalleryLink()],
    }


def _react_app(base_path: str, name: str, destination: str, view: str, **more: Any) -> dict[str, Any]:
    """Return one entry; ``nanobanana.js`` tells by what it is given which view it is to be.

    :param name: Its label. It becomes a global of the page: none that browsers have (``Image`` would be one).
    """
    static = f"{base_path}{PREFIX}/static"
    # Airflow evaluates a module once: each entry needs an address of its own.
    query = f"?view={view}&v={quote(__version__)}"
    return {
        "name": name,
        "bundle_url": f"{static}/nanobanana.js{query}",
        "destination": destination,
        "url_route": f"nanobanana-{view}",
        "icon": f"{static}/icon.svg",
        "icon_dark_mode": f"{static}/icon-dark.svg",
        **more,
    }


_entries = plugin_entries(
    get_base_airflow_version_tuple(),
    urlparse(conf.get("api", "base_url", fallback="") or "").path.rstrip("/"),
    switched_on=conf.getboolean("nanobanana", "gallery", fallback=True),
)


class GalleryPlugin(AirflowPlugin):
    """Tabs, pages and links of this provider; see the module."""

    name = "nanobanana"
    fastapi_apps = _entries.get("fastapi_apps", [])
    react_apps = _entries.get("react_apps", [])
    operator_extra_links = _entries.get("operator_extra_links", [])
