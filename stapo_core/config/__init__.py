"""What a run is told: one definition behind REST, the stored row, the trainer's input file and the dashboard.

Knows pydantic alone; must stay free of torch, so that every service can read a config. Each field's sentence is
the public API text.
"""

from stapo_core.config.algorithms import (
    Algorithm,
    AlgorithmConfig,
    CispoConfig,
    ClipConfig,
    DapoConfig,
    DrGrpoConfig,
    Entropy20Config,
    FullMaskConfig,
    GrpoConfig,
    GspoConfig,
    HighEntropyMaskConfig,
    JustrlConfig,
    NegativeMaskConfig,
    RandomMaskConfig,
    RareTokenConfig,
    StapoConfig,
    TacoConfig,
)
from stapo_core.config.graders import (
    Grader,
    MathGrader,
    NumericGrader,
    StringCheckGrader,
)
from stapo_core.config.run import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    HeldOutConfig,
    LoraConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    TrainConfig,
)
from stapo_core.config.strict import (
    ClipRange,
    Positive,
    Probability,
    Strict,
)

__all__ = [
    "Algorithm",
    "AlgorithmConfig",
    "BatchConfig",
    "CheckpointConfig",
    "CispoConfig",
    "ClipConfig",
    "ClipRange",
    "DapoConfig",
    "DrGrpoConfig",
    "Entropy20Config",
    "EvaluationConfig",
    "FullMaskConfig",
    "Grader",
    "GrpoConfig",
    "GspoConfig",
    "HeldOutConfig",
    "HighEntropyMaskConfig",
    "JustrlConfig",
    "LoraConfig",
    "MathGrader",
    "NegativeMaskConfig",
    "NumericGrader",
    "OptimizerConfig",
    "Positive",
    "Probability",
    "RandomMaskConfig",
    "RareTokenConfig",
    "RunConfig",
    "SamplingConfig",
    "StapoConfig",
    "Strict",
    "StringCheckGrader",
    "TacoConfig",
    "TrainConfig",
]
