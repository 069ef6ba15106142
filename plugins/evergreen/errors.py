"""The one place where a core error becomes an Airflow exception: permanent ones are not retried, temporary ones are."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.kernel.errors import Permanent, Temporary


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except Permanent as error:
        raise AirflowFailException(str(error)) from error
    except Temporary as error:
        raise AirflowException(str(error)) from error
