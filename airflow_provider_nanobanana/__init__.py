"""Apache Airflow provider for Nano Banana image generation through ToAPIs."""

__version__ = "0.1.0"
