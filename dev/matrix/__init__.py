"""``make matrix``: the tests on each supported Airflow and Python, one after another, and one table of them all."""
