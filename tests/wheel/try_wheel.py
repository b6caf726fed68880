"""Build the wheel and try it as a user's Airflow would: in a clean environment, through provider discovery.

Run by ``make wheel``. It is no pytest module: it needs an environment of its own, without the checkout on its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_nanobanana"

# Runs inside the clean environment; prints what Airflow itself says about the provider.
PROBE = """
import importlib, pkgutil, sys
from importlib.metadata import version
import airflow_provider_nanobanana as package
assert "site-packages" in package.__file__, package.__file__
found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
names = [module.name for module in found if not module.name.endswith("__main__")]
# Needs the extra [openlineage]; nothing else imports it.
names.remove("airflow_provider_nanobanana.batch.openlineage")
for name in names:
    importlib.import_module(name)
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
manager = ProvidersManager()
provider = manager.providers["airflow-provider-nanobanana"]
assert provider.version == version("airflow-provider-nanobanana") == package.__version__, provider.version
assert "extra__nanobanana__timeout" in manager.connection_form_widgets, "the connection form lacks our fields"
hook = ProvidersManagerTaskRuntime().hooks["nanobanana"]
assert hook is not None, "the hook of the connection type could not be imported"
print(f"{len(names)} modules import; Airflow lists {provider.data['package-name']} {provider.version}")
print(f"connection type {hook.connection_type}: {hook.hook_name}, {hook.hook_class_name}")
"""


def main() -> None:
    """Build, inspect, install and probe; exits non-zero at the first thing that is wrong."""
    with tempfile.TemporaryDirectory(prefix="nanobanana-wheel-") as scratch:
        home = Path(scratch)
        wheel = _build(home / "dist")
        _inspect(wheel)
        python = _install(wheel, home / "venv")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))}
        env |= {"AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        if subprocess.run([python, "-c", PROBE], check=False, cwd=home, env=env).returncode:
            sys.exit(f"{wheel.name} does not work in a clean environment")
        target = REPO / "dist"
        target.mkdir(exist_ok=True)
        kept = target / wheel.name
        kept.write_bytes(wheel.read_bytes())
        print(f"{kept.relative_to(REPO)} is good ({kept.stat().st_size // 1024} kB)")


def _build(target: Path) -> Path:
    """Build with the backend that is installed (and pinned), not with a fresh download of it."""
    _uv("build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", str(target), str(REPO))
    (wheel,) = target.glob("*.whl")
    return wheel


def _inspect(wheel: Path) -> None:
    """Check that the package is whole and nothing else is in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/", 1)[0] for name in names}
    foreign = {top for top in tops if top != PACKAGE and not top.endswith(".dist-info")}
    if foreign:
        sys.exit(f"The wheel holds more than the package: {sorted(foreign)}")
    for needed in ("py.typed", "get_provider_info.py", "manifest.schema.json"):
        if f"{PACKAGE}/{needed}" not in names:
            sys.exit(f"The wheel lacks {needed}")


def _install(wheel: Path, venv: Path) -> Path:
    python = venv / "bin" / "python"
    _uv("venv", "--quiet", "--python", sys.executable, str(venv))
    constraints = str(REPO / "constraints" / f"constraints-{version('apache-airflow')}.txt")
    _uv("pip", "install", "--quiet", "--python", str(python), "-c", constraints, str(wheel))
    return python


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, cwd=REPO)


if __name__ == "__main__":
    main()
