"""The one-command demo: a real Airflow, a local ToAPIs, pictures on disk."""
