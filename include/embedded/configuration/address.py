"""The name under which Airflow's components find each other's logs.

By default that is the machine's own name, which on many laptops resolves to nothing or to another network. Kept apart
and free of imports: every Airflow process loads it.
"""


def this_machine() -> str:
    return "127.0.0.1"
