"""The wire: what goes in and comes out, around `stapo_core.config`; the words are the fine-tuning dialect's.

Objects that come in refuse unknown fields; objects that go out list theirs, so that no column leaks by accident.
"""

from api.schemas.files import FileDeleted, FileObject, ModelObject
from api.schemas.graders import (
    GraderErrors,
    GraderRun,
    GraderRunMetadata,
    GraderRunResult,
    GraderValidate,
    GraderValidated,
)
from api.schemas.jobs import JobEstimate, JobFacts, JobObject, JobPreview, MemoryEstimate, job_object, model_name
from api.schemas.platform import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyObject,
    ModelUsage,
    QueuedJob,
    QueueState,
    Usage,
)
from api.schemas.records import Comparison, JobSeries, LogText, Manifest, job_manifest
from api.schemas.requests import ForkCreate, Hyperparameters, JobCreate, JobPatch, Reinforcement
from api.schemas.results import CheckpointObject
from api.schemas.rollouts import (
    Funnel,
    MaskedTokens,
    MaskFigures,
    MaskSimulation,
    MinibatchThresholds,
    RolloutDetail,
    RolloutObject,
    SimulatedThresholds,
    TokenCount,
    TokenInContext,
    TokenObject,
    TokenSet,
)
from api.schemas.validations import (
    Duplicate,
    FileValidation,
    LengthBin,
    Lengths,
    Overlap,
    RefusedRow,
)
from api.schemas.watching import JobEventObject, JobProgress, MetricsList, MetricsPoint, StreamTicket
from api.schemas.wire import DialectError, Fault, Health, ListOf, Problem, Readiness, epoch

__all__ = [
    "ApiKeyCreate",
    "ApiKeyCreated",
    "ApiKeyObject",
    "CheckpointObject",
    "Comparison",
    "DialectError",
    "Duplicate",
    "Fault",
    "FileDeleted",
    "FileObject",
    "FileValidation",
    "ForkCreate",
    "Funnel",
    "GraderErrors",
    "GraderRun",
    "GraderRunMetadata",
    "GraderRunResult",
    "GraderValidate",
    "GraderValidated",
    "Health",
    "Hyperparameters",
    "JobCreate",
    "JobEstimate",
    "JobEventObject",
    "JobFacts",
    "JobObject",
    "JobPatch",
    "JobPreview",
    "JobProgress",
    "JobSeries",
    "LengthBin",
    "Lengths",
    "ListOf",
    "LogText",
    "Manifest",
    "MaskFigures",
    "MaskSimulation",
    "MaskedTokens",
    "MemoryEstimate",
    "MetricsList",
    "MetricsPoint",
    "MinibatchThresholds",
    "ModelObject",
    "ModelUsage",
    "Overlap",
    "Problem",
    "QueueState",
    "QueuedJob",
    "Readiness",
    "RefusedRow",
    "Reinforcement",
    "RolloutDetail",
    "RolloutObject",
    "SimulatedThresholds",
    "StreamTicket",
    "TokenCount",
    "TokenInContext",
    "TokenObject",
    "TokenSet",
    "Usage",
    "epoch",
    "job_manifest",
    "job_object",
    "model_name",
]
