"""The route file, in words and before a real Envoy."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from include.embedded.stack.stack import Stack
from include.kernel.words.colours import COLOURS, other
from include.release.core.rollout import Route
from include.release.targets.local.envoy_routes import build_cluster_name, build_label, parse, parse_label, render

TINY_SLOT = Path(__file__).with_name("tiny_slot.py")
Process = subprocess.Popen


@st.composite
def routes(draw) -> Route:
    live = draw(st.sampled_from([None, *COLOURS]))
    generation, trial = (draw(st.integers(0, 2**40)) for _ in range(2))
    how = draw(st.sampled_from(["alone", "standby", "share", "sticky", "mirror"])) if live else "alone"
    return Route(
        live,
        other(live) if live and how == "standby" else None,
        generation,
        draw(st.integers(1, 99)) if how in ("share", "sticky") else 0,
        how == "mirror",
        trial,
        how == "sticky",
    )


@given(routes())
def test_a_route_file_reads_back_as_the_route_it_was_written_for(route):
    assert parse(render(route)) == route


@given(routes())
def test_the_word_that_the_proxys_answers_carry_names_the_route(route):
    assert parse_label(build_label(route)) == (route if route.live else None)


@pytest.mark.parametrize("word", ["", "7", "7.3-red_first", "7.3-blue_first-green.25.5"])
def test_another_word_names_none(word):
    assert parse_label(word) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "resources: []", render(Route("blue")).replace("blue_only", "red_only")]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="not a route file of ours"):
        parse(text)


def test_the_four_clusters_have_the_names_they_say():
    assert build_cluster_name(Route()) is None
    assert build_cluster_name(Route("blue")) == "blue_only"
    assert build_cluster_name(Route("green", "blue")) == "green_first"


@pytest.fixture
def slots(settings) -> Iterator[dict[str, Process]]:
    ports = {"blue": settings.blue_port, "green": settings.green_port}
    started = {name: Process([sys.executable, str(TINY_SLOT), name, str(port)]) for name, port in ports.items()}
    for port in ports.values():
        wait_for(lambda port=port: httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).status_code == 200)
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.fixture
def switch(stack, settings, slots) -> Callable[[Route], float]:
    """Envoy in front of both slots; call it to write a route, as the serving target does. Gives the time it took."""
    stack().start()

    def write(route: Route) -> float:
        draft = settings.route_file.with_name(".draft")
        draft.write_text(render(route))
        started = time.monotonic()
        draft.replace(settings.route_file)
        wait_for(lambda: generation(settings) == str(route.generation))
        return time.monotonic() - started

    return write


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def generation(settings) -> str:
    return httpx.get(settings.serving_url, trust_env=False).headers["x-evergreen-generation"]


async def load(url: str, meanwhile: Callable[[], None], clients: int = 8) -> Counter[str]:
    """Keep-alive clients that ask without a pause while something else happens; what they were answered."""
    seen: Counter[str] = Counter()
    done = asyncio.Event()

    async def client() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            while not done.is_set():
                try:
                    answer = await http.post(url, content=b"{}")
                    seen[answer.text if answer.status_code == 200 else f"failed: {answer.status_code}"] += 1
                except httpx.HTTPError as error:
                    seen[f"failed: {error!r}"] += 1

    async def story() -> None:
        await asyncio.to_thread(meanwhile)
        done.set()

    await asyncio.gather(story(), *(client() for _ in range(clients)))
    return seen


def failures(seen: Counter[str]) -> dict[str, int]:
    return {text: count for text, count in seen.items() if text.startswith("failed")}


async def test_no_request_fails_while_the_route_switches(settings, switch):
    switch(Route("blue", generation=1))

    def switches() -> None:
        for number in range(2, 14):
            live = COLOURS[number % 2]
            switch(Route(live, other(live) if number % 3 == 0 else None, number))
            time.sleep(0.1)

    seen = await load(settings.serving_url, switches)
    assert failures(seen) == {}
    assert seen["blue"] > 100 and seen["green"] > 100


@pytest.mark.parametrize(("legacy", "status"), [(False, b"426"), (True, b"200")])
@pytest.mark.parametrize("host", [b"host: x\r\n", b""], ids=["a host", "no host"])
def test_http_1_0_is_taken_where_the_stack_is_told_so(settings, slots, legacy, status, host):
    told = settings.model_copy(update={"legacy_http": legacy})
    Stack(told, Console(file=io.StringIO())).start()
    settings.route_file.write_text(render(Route()))
    draft = settings.route_file.with_name(".draft")
    draft.write_text(render(Route("blue", generation=1)))
    draft.replace(settings.route_file)
    wait_for(lambda: generation(settings) == "1")
    with socket.create_connection(("127.0.0.1", settings.serving_port), timeout=5) as sock:
        sock.sendall(b"POST /predict HTTP/1.0\r\n" + host + b"content-length: 2\r\n\r\n{}")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.split()[1] == status and answer.endswith(b"blue") is legacy


def test_the_generation_of_an_answer_and_its_colour_belong_together(settings, switch):
    for number, colour in enumerate(("blue", "green", "blue"), start=1):
        assert switch(Route(colour, generation=number)) < 1
        assert httpx.get(settings.serving_url, trust_env=False).text == colour


def test_the_same_generation_with_a_standby_added_takes_effect(settings, switch, slots):
    switch(Route("blue", generation=3))
    switch(Route("blue", "green", generation=3))
    wait_for(lambda: clusters_seen(settings) == "blue_first")


def clusters_seen(settings) -> str:
    """The cluster that answered the latest request, by the access log."""
    httpx.get(settings.serving_url, trust_env=False)
    log = settings.logs_dir / "envoy_access.log"
    return json.loads(log.read_text().splitlines()[-1])["cluster"] if log.exists() and log.stat().st_size else ""


async def test_a_killed_live_slot_fails_over_to_the_standby(settings, switch, slots):
    switch(Route("blue", "green", generation=1))

    def kill() -> None:
        time.sleep(1.5)
        slots["blue"].kill()
        time.sleep(1.5)

    seen = await load(settings.serving_url, kill)
    assert failures(seen) == {}
    assert seen["blue"] > 100 and seen["green"] > 100


def test_a_live_slot_that_comes_back_is_live_again(settings, switch, slots):
    switch(Route("blue", "green", generation=1))
    slots["blue"].kill()
    slots["blue"].wait()
    wait_for(lambda: httpx.get(settings.serving_url, trust_env=False).text == "green")
    slots["blue"] = Process([sys.executable, str(TINY_SLOT), "blue", str(settings.blue_port)])
    wait_for(lambda: httpx.get(settings.serving_url, trust_env=False).text == "blue")


def test_a_slot_that_is_called_healthy_gets_the_very_next_request(settings, switch, slots):
    """Envoy would tell its admin page first and its workers up to a second later: `update_merge_window`."""
    switch(Route("blue", "green", generation=1))
    for _ in range(3):
        slots["blue"].kill()
        slots["blue"].wait()
        wait_for(lambda: not is_healthy(settings, "blue_first"))
        slots["blue"] = Process([sys.executable, str(TINY_SLOT), "blue", str(settings.blue_port)])
        wait_for(lambda: is_healthy(settings, "blue_first"))
        answers = [httpx.get(settings.serving_url, trust_env=False).text for _ in range(10)]
        assert set(answers) == {"blue"}


def is_healthy(settings, cluster: str) -> bool:
    """Whether Envoy says so of the first slot of a cluster."""
    told = httpx.get(f"http://127.0.0.1:{settings.envoy_admin_port}/clusters?format=json", trust_env=False).json()
    [hosts] = [each["host_statuses"] for each in told["cluster_statuses"] if each["name"] == cluster]
    [first] = [host["health_status"] for host in hosts if not host.get("priority")]
    return not first.get("failed_active_health_check", False)


def test_without_a_standby_a_dead_slot_is_an_error_and_never_the_other_version(settings, switch, slots):
    switch(Route("blue", generation=1))
    slots["blue"].kill()
    slots["blue"].wait()
    answers = [httpx.get(settings.serving_url, trust_env=False) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
