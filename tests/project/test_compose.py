"""docker-compose.yaml and the images are held to each other, to .env.example and to the code, without an engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.embedded.commands.prometheus import MONITORING_DIR, build_configuration, write_configuration
from include.embedded.configuration.settings import EmbeddedSettings
from tests.proofs import compose_services

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
EXAMPLE = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line[:1].isupper())
VALUES = {name: value or "0" * 32 for name, value in EXAMPLE.items()}
SERVICES = compose_services.services(VALUES)
VOLUMES = set(yaml.safe_load(TEXT)["volumes"])
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSIDE = "/var/lib/evergreen"  # where the volume `state` lies


def ends(service: dict[str, Any]) -> bool:
    return service.get("restart") == "no"


def test_what_compose_asks_for_is_in_the_example_and_what_is_demanded_is_empty() -> None:
    asked = {name: kind for _, name, kind, _ in compose_services.VARIABLE.findall(TEXT) if name}
    assert set(asked) <= set(EXAMPLE)
    assert {name for name, kind in asked.items() if kind == ":?"} == {name for name in EXAMPLE if not EXAMPLE[name]} - {
        "COMPOSE_PROFILES"
    }


def test_compose_stops_without_a_secret() -> None:
    with pytest.raises(KeyError, match=r"fill in \.env"):
        compose_services.services({})


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("a $$b ${C:-d}", {}, "a $b d"),
        ("${C:-d}|${C-d}", {"C": ""}, "d|"),
        ("${C:?no}", {"C": "e"}, "e"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, values: dict[str, str], filled: str) -> None:
    assert compose_services.filled(text, values) == filled


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_tells_its_health_or_ends(name: str) -> None:
    service = SERVICES[name]
    assert ends(service) != ("healthcheck" in service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_happen(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if ends(SERVICES[other]) else "service_healthy"
        assert wanted["condition"] == expected
        assert set(SERVICES[other].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def test_volumes_are_named_once_and_mounted_files_exist() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == VOLUMES
    assert all((ROOT / mount).exists() for mount in mounts if mount.startswith("."))


def test_nothing_is_reached_from_outside_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in yaml.safe_load(TEXT)["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|_KEY|CONN_BLESSING|SQL_ALCHEMY", variable):
                assert "${" in value, (name, variable)


def test_compose_builds_stages_that_exist_of_images_that_are_pinned() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    assert stages == {"base", "lists", "server", "job", "airflow"}
    for service in SERVICES.values():
        assert service.get("build", {"target": "airflow"})["target"] in stages
        assert "build" in service or re.search(r":v?\d", service["image"])


def test_images_install_by_digest_and_run_as_nobody_in_particular() -> None:
    installs = re.findall(r"install \$locked .*?-r (\S+)", DOCKERFILE)
    assert len(installs) == DOCKERFILE.count("$pip install") == 6
    assert DOCKERFILE.count('locked="--require-hashes') == 4
    listed = re.findall(r"\$list .* --output-file (\S+)", DOCKERFILE)
    assert {*installs} == {"uv.txt", "torch.txt", *listed} and DOCKERFILE.count("export --quiet --frozen") == 1
    assert DOCKERFILE.count("\nUSER 10001\n") == 3


def test_prometheus_finds_what_the_init_service_writes(tmp_path: Path) -> None:
    written = write_configuration(EmbeddedSettings(home=tmp_path)).split()[1].replace(str(tmp_path), INSIDE)
    assert (
        f"EVERGREEN_HOME={INSIDE} python -m include.embedded.commands.prometheus"
        in SERVICES["airflow-init"]["command"][-1]
    )
    assert written in SERVICES["prometheus"]["command"]
    assert f"--config.file={INSIDE}/prometheus/alertmanager.yml" in SERVICES["alertmanager"]["command"]
    asked = json.dumps(build_configuration(EmbeddedSettings(home=Path(INSIDE))))
    assert {"127.0.0.1:9093", "127.0.0.1:9108", "127.0.0.1:9901"} <= set(re.findall(r"127[\d.]+:\d+", asked))
    sharing = {name for name, service in SERVICES.items() if service.get("network_mode") == "service:slots"}
    assert {"prometheus", "alertmanager", "exporter", "envoy", "airflow-scheduler", "airflow-worker"} == sharing


def test_grafana_finds_the_dashboards_and_a_server_to_ask() -> None:
    place = ROOT / "docker/grafana"
    [provider] = yaml.safe_load((place / "dashboards/evergreen.yaml").read_text())["providers"]
    [source] = yaml.safe_load((place / "datasources/prometheus.yaml").read_text())["datasources"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./k8s/components/monitoring/dashboards"] == provider["options"]["path"]
    assert (ROOT / "k8s/components/monitoring/dashboards") == MONITORING_DIR / "dashboards"
    assert source["type"] == "prometheus" and source["url"] == "http://slots:9090"
    assert "--web.listen-address=0.0.0.0:9090" in SERVICES["prometheus"]["command"]


def composes() -> list[str] | None:
    """The command of a Compose that is installed; the first generation of it does not know today's format."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    return ["podman-compose"] if shutil.which("podman-compose") else None


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    command = composes()
    if command is None:
        pytest.skip("neither docker compose nor podman-compose is installed")
    settings = tmp_path / "env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in VALUES.items()))
    told = [*command, "--env-file", str(settings), "-f", str(ROOT / "docker-compose.yaml"), "config"]
    done = subprocess.run(told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {"slots", "envoy", "airflow-scheduler"} <= set(yaml.safe_load(done.stdout)["services"])


def test_the_astro_cli_finds_a_project_it_can_start() -> None:
    config = yaml.safe_load((ROOT / ".astro/config.yaml").read_text())
    settings = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text())["airflow"]
    assert config["project"]["name"] and config["disable_astro_run"] is True
    assert (ROOT / "packages.txt").read_text() == ""
    assert {each["conn_id"] for each in settings["connections"]} == {
        "mlflow_default",
        "blessing_signer",
        "blessing_trust",
    }
    assert not any(each["conn_password"] for each in settings["connections"])
    assert re.search(r"^LABEL io\.astronomer\.docker\.runtime\.version=3\.\d+-\d+$", DOCKERFILE, re.MULTILINE)
    assert "/usr/local/airflow" in DOCKERFILE and " astro " in DOCKERFILE
