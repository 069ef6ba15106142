"""Evergreen's operators, sensors, triggers and hooks: how Airflow waits, and nothing else."""
