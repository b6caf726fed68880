"""The pure core of a batch: items, money, waves, outcomes, result and manifest. No Airflow, no I/O, no clock."""
