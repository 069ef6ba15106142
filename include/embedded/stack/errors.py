"""What can go wrong while the stack is started or stopped: always one sentence a person can act on."""


class StackError(Exception):
    """The stack cannot do what was asked; the message says what to change, so no traceback is shown."""
