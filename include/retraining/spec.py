"""The manifest's section about the decision to retrain."""

from pydantic import Field

from include.kernel.spec import Count, Days, Section
from include.release.spec import ReleaseManifest
from include.training.spec import TrainingManifest


class RetrainingSpec(Section):
    schedule: str
    cooldown_days: Days = Field(description="data days between two trainings")
    min_new_labels: Count = Field(description="labelled rows the last training has not seen")
    wait_for_labels_days: Days = Field(description="data days a drift waits for those labels")
    max_age_days: Count = Field(60, description="data days after which fewer new labelled rows will do")
    monthly_budget: Count = Field(
        6, description="trainings approved in one calendar month of data days; those a person asked for do not count"
    )
    breaker_refusals: Count = Field(2, description="gates refused in a row, after which no training is approved")
    breaker_days: Count = Field(14, description="data days after the last of them until one training is tried again")


class RetrainingManifest(TrainingManifest, ReleaseManifest):
    """The manifest as far as the decision to retrain is concerned, which also asks whether a release is under way."""

    retraining: RetrainingSpec
