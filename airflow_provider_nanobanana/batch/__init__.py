"""The pure core of a batch: orders, money, waves, outcomes, result and manifest. No Airflow, no I/O, no clock."""
