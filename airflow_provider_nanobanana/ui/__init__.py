"""What people see inside Airflow's interface: gallery, ledger and image spend; nothing here runs in a task."""
