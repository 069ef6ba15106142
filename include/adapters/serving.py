"""Any of the serving targets: what drives a release knows no more of them than what all can do (include.core.ports)."""

from __future__ import annotations

from include.adapters.cluster_upkeep import ClusterUpkeep
from include.adapters.serving_kubernetes import KubernetesTarget
from include.adapters.serving_local import LocalTarget
from include.adapters.serving_upkeep import LocalUpkeep

Target = LocalTarget | KubernetesTarget
Upkeep = LocalUpkeep | ClusterUpkeep
