"""The one place where a core error becomes an Airflow exception: permanent ones are not retried, temporary ones are."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.kernel.errors import Permanent, Temporary


class JobRefused(AirflowFailException):
    """A job failed for good. `kind` names the error of include.kernel.errors that the job ended by, as it wrote it."""

    def __init__(self, message: str, kind: str | None) -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except Permanent as error:
        raise AirflowFailException(str(error)) from error
    except Temporary as error:
        raise AirflowException(str(error)) from error
