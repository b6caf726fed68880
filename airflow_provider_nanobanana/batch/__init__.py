"""The pure core of a batch: orders, money, waves, outcomes, result and manifest. No Airflow, no I/O, no clock."""

from __future__ import annotations

from airflow_provider_nanobanana.batch.manifest import manifest
from airflow_provider_nanobanana.batch.money import Budget, Cost, Estimate, Spent, check_balance, dollars, price
from airflow_provider_nanobanana.batch.orders import Order, take_orders
from airflow_provider_nanobanana.batch.outcome import Failed, Landed, Outcome
from airflow_provider_nanobanana.batch.result import BatchIncomplete, conclude, failure_table, result
from airflow_provider_nanobanana.batch.waves import Plan, Progress, enough, wake_by, wave_size

__all__ = [
    "BatchIncomplete",
    "Budget",
    "Cost",
    "Estimate",
    "Failed",
    "Landed",
    "Order",
    "Outcome",
    "Plan",
    "Progress",
    "Spent",
    "check_balance",
    "conclude",
    "dollars",
    "enough",
    "failure_table",
    "manifest",
    "price",
    "result",
    "take_orders",
    "wake_by",
    "wave_size",
]
