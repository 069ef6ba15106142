from hypothesis import given
from hypothesis import strategies as st

from include.serving.transport.token_bucket import take


def test_a_burst_passes_at_once_and_then_one_at_a_time() -> None:
    full_at, waits = 0.0, []
    for _ in range(4):
        full_at, wait = take(full_at, 100.0, per_second=2, burst=3)
        waits.append(wait)
    assert waits[:3] == [0, 0, 0] and abs(waits[3] - 0.5) < 1e-9
    assert take(full_at, 100.4, 2, 3)[1] > 0
    assert take(full_at, 100.5, 2, 3)[1] == 0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_never_more_than_the_burst_and_the_rate_allow(gaps: list[float], per_second: int, burst: int) -> None:
    full_at, now, passed = 0.0, 50.0, 0
    for gap in gaps:
        now += gap
        full_at, wait = take(full_at, now, per_second, burst)
        passed += wait == 0
        assert 0 <= wait <= 1 / per_second + 1e-6
        assert passed <= burst + per_second * (now - 50.0) + 1e-6
