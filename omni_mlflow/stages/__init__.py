"""The stages by name, in the order of the main job."""

from __future__ import annotations

from omni_mlflow.stages.base import Stage
from omni_mlflow.stages.evaluate import EVALUATE
from omni_mlflow.stages.export import EXPORT
from omni_mlflow.stages.gate import GATE
from omni_mlflow.stages.guard import GUARD
from omni_mlflow.stages.index import INDEX
from omni_mlflow.stages.merge import MERGE
from omni_mlflow.stages.publish import PUBLISH
from omni_mlflow.stages.register import REGISTER
from omni_mlflow.stages.report import REPORT
from omni_mlflow.stages.select import SELECT
from omni_mlflow.stages.split import SPLIT
from omni_mlflow.stages.synthesize import SYNTHESIZE
from omni_mlflow.stages.train import TRAIN
from omni_mlflow.stages.validate import VALIDATE

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        SYNTHESIZE,
        SELECT,
        SPLIT,
        GUARD,
        INDEX,
        EXPORT,
        TRAIN,
        GATE,
        EVALUATE,
        MERGE,
        VALIDATE,
        REPORT,
        REGISTER,
        PUBLISH,
    )
}

FILLS = {stage.name: stage.work.name for stage in STAGES.values() if stage.fills}
"""Stages that do the work of another one in another way, and that other one."""

OF_ONE_BACKBONE = frozenset(stage.name for stage in STAGES.values() if stage.per_backbone)
"""Stages whose run names its backbone; a run of the others is of all of them."""
