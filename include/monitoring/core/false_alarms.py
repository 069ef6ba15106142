"""How often healthy rows will be called sick, from the manifest alone: the budget a team signs when it sets `alpha`.

Each check of a window keeps a false-discovery rate, so over healthy rows it raises anything with probability `alpha`
at most. Two checks decide about a window (features, scores), so it is called drifted with twice that at most. The
expected number of days with an alarm is a sum over days, and an alarm needs the newest window drifted, so their
number times that probability bounds it whatever the days have in common. And they have much in common: windows
overlap, and one unlucky baseline is compared with all of them. Persistence therefore saves less than the textbook's
power of independent windows, which stands beside the bound as what it can save at best. Performance and ADWIN
on matured labels are an alarm at once: they stand apart. `make prove-drift` measures the truth between the two for
drift.
"""

from dataclasses import dataclass
from math import comb

from include.monitoring.spec import MonitorSpec

DECIDING = ("feature_drift", "prediction_drift")  # the checks whose critical signals make a window drifted
DAYS = 365  # windows a year: one ends at each ingested day, however often it is measured


@dataclass(frozen=True)
class FalseAlarmBudget:
    """Expected over a year of healthy rows: days on which a check raises a signal, and days with an alarm.

    `by_labels` are the alarms of performance and of ADWIN on matured rows, which ask for no persistence.
    """

    signals: float
    alarms: float
    alarms_if_independent: float
    by_labels: float

    @property
    def sentence(self) -> str:
        return (
            f"on healthy rows each check raises a signal on at most {self.signals:.2g} days a year, "
            f"and at most {self.alarms:.2g} days have an alarm "
            f"({self.alarms_if_independent:.2g} if windows were independent); matured labels add at most "
            f"{self.by_labels:.2g}"
        )


def compute_budget(spec: MonitorSpec) -> FalseAlarmBudget:
    drifted = min(1.0, len(DECIDING) * spec.alpha)
    earlier, needed = spec.persistence.n - 1, spec.persistence.k - 1
    again = sum(
        comb(earlier, hits) * drifted**hits * (1 - drifted) ** (earlier - hits)
        for hits in range(needed, spec.persistence.n)
    )
    by_labels = spec.alpha + spec.performance.concept_delta
    return FalseAlarmBudget(DAYS * spec.alpha, DAYS * drifted, DAYS * drifted * again, DAYS * by_labels)
