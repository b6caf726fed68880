"""``make docs``: what mkdocs is told beside ``mkdocs.yml``, which names :mod:`dev.docs.hooks`."""
