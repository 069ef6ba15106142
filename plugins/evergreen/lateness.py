"""The former address of a deadline's callback, by which Airflow stored it with every run that began before it moved."""

from evergreen.deadline_callback import tell_late as tell_late
