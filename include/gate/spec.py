"""The manifest's sections about judging: checks, groups, costs, and what a model card says."""

from typing import Annotated, Literal

from pydantic import Field

from include.kernel.spec import Count, Section, Share
from include.model.blessing.approval import ApprovalPolicy
from include.serving.spec import ServingManifest


class CostSpec(Section):
    """What a wrong decision costs, in any one currency; only the ratio matters."""

    false_approval: Annotated[float, Field(gt=0)]
    false_denial: Annotated[float, Field(gt=0)]


Reaction = Literal["block", "warn"]


# What may be softened. The data, the floors, the champion, the schema and the policy always block.
Soft = Literal["classic", "stability", "overfit", "calibration", "slices", "fairness", "leakage", "infra"]


class WhenSpec(Section):
    """What a check that did not pass does to the release: stop it, or stand in the report as a warning."""

    refused: Reaction = Field("block", description="when the check's answer is no")
    inconclusive: Reaction = Field("block", description="when the rows cannot tell")


class ClassicSpec(Section):
    """The four that most teams ask for, at the threshold of the costs; each interval's lower end must reach it."""

    f1_ratio: Annotated[float, Field(gt=0)] = Field(description="challenger's F1 over the champion's")
    precision: Share = Field(description="share of those called positive who are")
    specificity: Share = Field(
        description="share of the negative who are called so; with sensitivity it keeps the balance"
    )
    sensitivity: Share = Field(description="share of the positive who are called so")


class StabilitySpec(Section):
    max_fold_sd: Share = Field(description="standard deviation of the cross-validation folds' AUCs, at most")


class OverfitSpec(Section):
    max_gap: Share = Field(description="AUC on the training rows minus AUC on the holdout, at most")


class CalibrationSpec(Section):
    bins: Annotated[int, Field(ge=2, le=100)] = Field(description="equally filled bins of the score")
    max_error: Share = Field(description="expected calibration error, corrected for noise, at most")


class SliceSpec(Section):
    """Judged for each slice of `groups`: against the champion, or against the floor for the first model."""

    min_rows: Count = Field(description="rows below which a slice has no verdict")
    min_class_rows: Annotated[int, Field(ge=2)] = Field(description="the same for the rows of each class")
    auc_margin: Share = Field(description="AUC a slice may lose against the champion")
    floor_auc: Share = Field(description="AUC of a slice of the first model, at least")


class FairnessSpec(Section):
    """Over the groups of each protected column, by fairlearn's definitions."""

    favourable: Literal["positive", "negative"] = Field(description="the decision people hope for")
    min_rows: Count = Field(description="rows of the favourable class below which a group is left out")
    parity_ratio: Share = Field(description="lowest over highest rate of favourable decisions (four-fifths rule)")
    opportunity_difference: Share = Field(description="spread of that rate among those who deserve it, at most")


class LeakageSpec(Section):
    max_auc: Share = Field(description="AUC of any single input above which it is taken for the label in disguise")


class InfraSpec(Section):
    """What the artifact may cost where it is served."""

    parity: Annotated[float, Field(gt=0)] = Field(
        description="golden rows, served minus trained probability, at most; a network declares 1e-5 of itself"
    )
    max_p99_ms: Annotated[float, Field(gt=0)] = Field(description="99th percentile of one row's time, milliseconds")
    max_rss_mb: Annotated[float, Field(gt=0)] = Field(description="resident memory of the server, MiB")
    max_size_mb: Annotated[float, Field(gt=0)] = Field(description="the artifact's files, MiB")
    explain: bool = Field(
        False, description="the golden rows must be explained too; trees and networks then cost some seconds more"
    )


class GateSpec(Section):
    """A section that is left out, or null, switches its checks off; the report then has no line of them."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(description="of every interval, two-sided")
    resamples: Annotated[int, Field(ge=200)] = Field(description="bootstrap resamples")
    seed: int
    min_rows: Count = Field(description="holdout rows below which the verdict is inconclusive")
    floor_auc: Share = Field(description="the AUC interval's lower end must reach it")
    floor_ap: Share | None = Field(None, description="the same for average precision")
    floor_f1: Share | None = Field(None, description="the same for F1 at the costs' threshold")
    auc_margin: Share = Field(description="AUC a challenger may lose against the champion (non-inferiority)")
    superiority: Literal["cost", "brier", "auc"] = Field(description="what a challenger must be better at")
    cost: CostSpec
    classic: ClassicSpec | None = None
    stability: StabilitySpec | None = None
    overfit: OverfitSpec | None = None
    calibration: CalibrationSpec | None = None
    slices: SliceSpec | None = None
    fairness: FairnessSpec | None = None
    leakage: LeakageSpec | None = None
    infra: InfraSpec | None = None
    policy: str | None = Field(None, description="a Rego file that may add denials; a path from the project")
    approval: ApprovalPolicy = Field(
        "never", description="when a person is asked: never, on an inconclusive gate, or always"
    )
    approval_hours: Annotated[float, Field(gt=0)] = Field(
        24, description="hours a person has to answer; no answer fails the training's run"
    )
    when: dict[Soft, WhenSpec] = Field(default_factory=dict, description="what blocks and what warns; unnamed blocks")

    @property
    def threshold(self) -> float:
        """The probability of the positive class from which a denial is cheaper (Elkan 2001, eq. 2)."""
        return self.cost.false_denial / (self.cost.false_denial + self.cost.false_approval)


class CardSpec(Section):
    """What a model card says that no measurement can: plain sentences, by the people who answer for the model."""

    intended_use: str = Field("", description="what the model decides or advises, about whom, for whom")
    out_of_scope: str = Field("", description="uses that nobody has checked, or that are wrong")
    limits: tuple[str, ...] = Field((), description="what a user should know before trusting a number")
    contact: str = Field("", description="whom to write to")


class GateManifest(ServingManifest):
    """The manifest as far as judging a model is concerned."""

    gate: GateSpec
    card: CardSpec = Field(default_factory=CardSpec)
