"""The token bucket: so many requests a second on average, so many at once; pure, one float a caller.

The classic algorithm (https://en.wikipedia.org/wiki/Token_bucket), told by the time the bucket will be full again, so
that nothing has to run while nobody asks.
"""


def take(full_at: float, now: float, per_second: float, burst: int) -> tuple[float, float]:
    """(when the bucket is full again, seconds to wait), both in the seconds of a monotonic clock.

    With nothing to wait the request is counted; else it is not, and may come again after that time.
    """
    later = max(full_at, now) + 1 / per_second
    wait = later - now - burst / per_second
    return (later, 0.0) if wait <= 1e-9 else (full_at, wait)
