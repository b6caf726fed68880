"""What Airflow's provider discovery reads: declarative, so that listing providers imports neither hook nor operator.

``package-name`` equals the name of the distribution, otherwise discovery fails for the whole installation. The form of
the connection is described here in the format of Airflow 3.2 and newer (``conn-fields``, ``ui-field-behaviour``);
older versions ask the hook, which answers from here.

One description for every Airflow: their schemas let unknown keys be, and no key means something else in an older one.
``how-to-guide``, ``external-services`` and ``retry-policies`` are read by Airflow's registry, not by Airflow itself.
"""

from __future__ import annotations

from typing import Any, Final

_PACKAGE = "airflow_provider_nanobanana"
_INTEGRATION = "Nano Banana (ToAPIs)"
#: ``Documentation`` of ``[project.urls]`` in pyproject.toml.
DOCUMENTATION: Final = "https://airflow-provider-nanobanana.github.io/airflow-provider-nanobanana/"


def get_provider_info() -> dict[str, Any]:
    """Describe this provider to Airflow.

    :return: The dictionary that ``airflow/provider_info.schema.json`` specifies.
    """
    return {
        "package-name": "airflow-provider-nanobanana",
        "name": "Nano Banana",
        "description": "Image generation with Nano Banana through `ToAPIs <https://toapis.com>`__.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.toapis.com",
                "how-to-guide": ["/docs/quickstart.md", "/docs/generate.md", "/docs/three-tasks.md", "/docs/review.md"],
                "logo": f"{DOCUMENTATION}logo.svg",
                "tags": ["service", "ai", "image-generation"],
            }
        ],
        "hooks": _modules("hooks.nanobanana"),
        "operators": _modules("operators.nanobanana"),
        "sensors": _modules("sensors.nanobanana"),
        "triggers": _modules("triggers.nanobanana", "triggers.timer"),
        "retry-policies": _modules("retry_policy"),
        "extra-links": [f"{_PACKAGE}.ui.links.GalleryLink"],
        "task-decorators": [
            {"name": "nanobanana", "class-name": f"{_PACKAGE}.decorators.nanobanana.nanobanana_task"},
        ],
        "plugins": [{"name": "nanobanana", "plugin-class": f"{_PACKAGE}.ui.plugin.GalleryPlugin"}],
        "config": {"nanobanana": _CONFIG},
        "connection-types": [
            {
                "connection-type": "nanobanana",
                "hook-class-name": f"{_PACKAGE}.hooks.nanobanana.NanoBananaHook",
                "hook-name": _INTEGRATION,
                "external-services": ["ToAPIs"],
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port"],
                    "relabeling": {"host": "Base URL", "password": "API key"},
                    "placeholders": {"host": "https://toapis.com", "password": "sk-..."},
                },
                "conn-fields": _connection_fields(),
            }
        ],
    }


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.{name}" for name in names]}]


_CONFIG: Final[dict[str, Any]] = {
    "description": "What this provider shows in Airflow's own interface.",
    "options": {
        "gallery": {
            "description": "Whether there are tabs, pages and links for pictures, and the routes behind them.\n",
            "version_added": "0.1.0",
            "type": "boolean",
            "example": None,
            "default": "True",
        },
        "gallery_roots": {
            "description": (
                "Folders, as URIs and with commas between them, whose pictures the api-server may show beside those "
                "below the destination that the task itself rendered. Pictures in a local folder (``file://``) are "
                "shown only if it lies below one of these.\n"
            ),
            "version_added": "0.1.0",
            "type": "string",
            "example": "file:///data/pictures, s3://media@our-bucket/pictures",
            "default": "",
        },
    },
}

_PRICE: Final = {"type": "number", "minimum": 0}
_PRICE_OR_PRICES: Final = {**_PRICE, "type": ["number", "object"], "additionalProperties": _PRICE}


def _connection_fields() -> dict[str, dict[str, Any]]:
    return {
        "model": _field(
            "Default model",
            "The model of requests that name none.",
            {"type": ["string", "null"], "default": "nano_banana_2"},
        ),
        "timeout": _field(
            "HTTP timeout (seconds)",
            "How long one HTTP call may take.",
            {"type": ["number", "null"], "default": 30, "exclusiveMinimum": 0},
        ),
        "submit_rate": _field(
            "Submits per second",
            "The account's limit for submitting image tasks; all processes of one machine keep it together.",
            {"type": ["number", "null"], "default": 5, "exclusiveMinimum": 0},
        ),
        "query_rate": _field(
            "Queries per second",
            "The account's limit for status queries.",
            {"type": ["number", "null"], "default": 50, "exclusiveMinimum": 0},
        ),
        "prices": _field(
            "Prices (USD per image)",
            "The account's own prices where they differ from the list or none is known: by resolution, such as "
            '{"1K": 0.025}, or by model, such as {"gpt-image-2": {"1K": 0.03}}.',
            {"type": ["object", "null"], "additionalProperties": _PRICE_OR_PRICES},
        ),
        "models": _field(
            "Models",
            "Rows of models that the provider does not know, such as "
            '{"my-model": {"dialect": "reference"}}, or changes of those it does, such as '
            '{"qwen-image-3.0": {"reference_price": 0.002}}; the fields of a row: docs/requests.md.',
            {"type": ["object", "null"], "additionalProperties": {"type": "object"}},
        ),
        "client_ids": _field(
            "Send client ids",
            "Whether submits carry a client_business_id, so that an image task with a lost answer is found again.",
            {"type": ["boolean", "null"], "default": True},
        ),
        "namespace": _field(
            "Namespace",
            "Tells Airflow installations that share one account apart: give each its own, such as staging. Change it "
            "only while nothing runs.",
            {"type": ["string", "null"], "default": "", "maxLength": 100},
        ),
        "allow_http": _field(
            "Allow plain http",
            "Whether the base URL may be http:// on a host that is not loopback, as an emulator in another container.",
            {"type": ["boolean", "null"], "default": False},
        ),
    }


def _field(label: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema}
