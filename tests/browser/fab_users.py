"""Give FAB's tables roles and users, all with one password: ``python -m tests.browser.fab_users JSON``.

A process of its own, as a test's has another auth manager. ``airflow users create`` is one for each of them.
"""

from __future__ import annotations

import json
import sys


def main(argument: str) -> None:
    """Make what is described.

    :param argument: ``{"password", "roles": {name: [[action, resource], ...]}, "users": {name: role}}``.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    wanted = json.loads(argument)
    with get_application_builder() as builder:
        manager = builder.sm
        builder.add_permissions(update_perms=True)
        manager.sync_roles()
        manager.bulk_sync_roles([{"role": name, "perms": perms} for name, perms in wanted["roles"].items()])
        for name, role in wanted["users"].items():
            mail = f"{name}@example.org"
            if not manager.add_user(name, name, name, mail, manager.find_role(role), wanted["password"]):
                sys.exit(f"There is no user {name}")


if __name__ == "__main__":
    main(sys.argv[1])
