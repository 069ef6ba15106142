"""Any of the serving targets: what drives a release knows no more of them than what all can do (include.core.ports)."""

from __future__ import annotations

from include.adapters.serving_kubernetes import KubernetesTarget
from include.adapters.serving_local import LocalTarget

Target = LocalTarget | KubernetesTarget
