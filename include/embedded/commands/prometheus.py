"""`make prometheus`: what a Prometheus beside the embedded stack needs to know, written to <home>/prometheus.

Prometheus and its Alertmanager are no part of the stack: whoever wants them has Debian's packages, containers or a
server elsewhere. The rules are those of k8s/components/monitoring, the one place they stand in, taken out of the object
that the Prometheus operator reads.
"""

import sys
from typing import Any

import yaml

from include.embedded.configuration.settings import REPO, EmbeddedSettings
from include.kernel.files import write_atomic

ROOT = REPO
MONITORING_DIR = REPO / "k8s" / "components" / "monitoring"


def read_rules() -> dict[str, Any]:
    """The groups of rules, as a plain Prometheus reads them."""
    spec: dict[str, Any] = yaml.safe_load((MONITORING_DIR / "rules.yaml").read_text())["spec"]
    return spec


def build_configuration(settings: EmbeddedSettings, alertmanager: str = "127.0.0.1:9093") -> dict[str, Any]:
    """The stack's four places with metrics; job names are what the rules call them."""
    slots = [f"{settings.host}:{port}" for port in (settings.blue_port, settings.green_port)]
    proxy = f"{settings.host}:{settings.envoy_admin_port}"
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": "evergreen-slots", "static_configs": [{"targets": slots}]},
            {
                "job_name": "evergreen-exporter",
                "static_configs": [{"targets": [f"{settings.host}:{settings.exporter_port}"]}],
            },
            {
                "job_name": "evergreen-proxy",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": [proxy]}],
            },
        ],
    }


def write_configuration(settings: EmbeddedSettings) -> str:
    """Writes prometheus.yml, rules.yml and alertmanager.yml; returns the command that starts Prometheus."""
    directory = settings.home / "prometheus"
    write_atomic(directory / "rules.yml", yaml.safe_dump(read_rules(), sort_keys=False))
    write_atomic(directory / "prometheus.yml", yaml.safe_dump(build_configuration(settings), sort_keys=False))
    write_atomic(directory / "alertmanager.yml", (MONITORING_DIR / "alertmanager.yaml").read_text())
    return (
        f"prometheus --config.file={directory / 'prometheus.yml'} --storage.tsdb.path={directory / 'data'} "
        f"--web.listen-address=127.0.0.1:9090"
    )


def main() -> int:
    print(write_configuration(EmbeddedSettings()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
