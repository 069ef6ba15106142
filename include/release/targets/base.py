"""Any of the serving targets: what drives a release knows no more of them than what all can do (include.ports)."""

from __future__ import annotations

from include.release.targets.kubernetes_repair import ClusterUpkeep
from include.release.targets.kubernetes_target import KubernetesTarget
from include.release.targets.local_repair import LocalUpkeep
from include.release.targets.local_target import LocalTarget

Target = LocalTarget | KubernetesTarget
Upkeep = LocalUpkeep | ClusterUpkeep
