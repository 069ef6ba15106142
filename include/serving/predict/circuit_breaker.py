"""When a failing model is left alone, and when it is tried again (Nygard, Release It!, 2007). Pure: time is passed in.

Closed, it lets everybody through and counts failures in a row. Open, it lets one request through every `reset_s`; the
first that succeeds closes it. What is in doubt, a try that was never finished, is simply followed by the next one.
"""

import math

from include.serving.spec import BreakerSpec


class CircuitBreaker:
    def __init__(self, spec: BreakerSpec) -> None:
        self._spec = spec
        self._failures = 0
        self._next_try = -math.inf

    @property
    def is_open(self) -> bool:
        return self._failures >= self._spec.failures

    def admit(self, now: float) -> bool:
        """Whether the model may be asked; asking counts as the try of an open breaker."""
        if not self.is_open:
            return True
        if now < self._next_try:
            return False
        self._next_try = now + self._spec.reset_s
        return True

    def compute_retry_after(self, now: float) -> int:
        """Whole seconds until the next try."""
        return max(1, math.ceil(self._next_try - now))

    def record_success(self) -> None:
        self._failures = 0

    def record_failure(self, now: float) -> None:
        self._failures += 1
        self._next_try = now + self._spec.reset_s
