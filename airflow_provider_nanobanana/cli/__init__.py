"""Commands for a person at a terminal: ``python -m airflow_provider_nanobanana <command>``, one module each."""
