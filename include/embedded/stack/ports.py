"""Is every port free? Asked before anything starts, so that the answer is a sentence and not a log file."""

import socket
from collections.abc import Iterable

from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack.errors import StackError
from include.embedded.stack.programs import Port


def require_free(ports: Iterable[Port]) -> None:
    problems = [describe_taken_port(port) for port in ports if not is_free(port.number)]
    if problems:
        raise StackError("\n".join(problems))


def describe_taken_port(port: Port) -> str:
    return f"Port {port.number} ({port.label}) is taken; set {port.setting} to a free one and run `make up` again."


def is_free(number: int) -> bool:
    """Bound, not connected to: a listener whose queue is full would refuse a connection and still hold the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((EmbeddedSettings.host, number))
        except OSError:
            return False
    return True
