"""What hatchling reads beside ``pyproject.toml``: README with links that work away from the repository."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Write README into the metadata with each relative link as an address: PyPI has neither docs/ nor pictures."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in ``readme``."""
        sys.path.insert(0, self.root)
        try:
            from dev.docs.links import absolute_readme
        finally:
            sys.path.remove(self.root)
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_readme(Path(self.root), metadata["urls"]),
        }
