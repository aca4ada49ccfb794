"""Typed settings: of rankers, retrieval and the ensemble, with the checks of single values and of values together.

`config_files` reads them from YAML files and the command line.
"""

from solution.config.base import Settings
from solution.config.embedder import EmbedderTuning
from solution.config.ensemble import (
    MAX_FOLDS,
    CandidateName,
    EnsembleConfig,
    Run,
    TrackerName,
    TuneSettings,
    needs_contexts,
)
from solution.config.ranker import (
    DEFAULT,
    RANKER_NAME,
    RERANKER,
    SCORE_OF,
    SCORE_TEMPERATURE,
    SIGNALS,
    AnswerWith,
    ContextView,
    FamilyName,
    OptionScore,
    RankerConfig,
    RankerName,
)
from solution.config.retrieval import (
    Language,
    QueryForm,
    RerankerSettings,
    RerankerTraining,
    RetrievalConfig,
    Retriever,
    SignalSettings,
)
from solution.config.training import (
    MOST_WEIGHT,
    AwpSettings,
    ExtraQuestions,
    LoraSettings,
    PretrainingSettings,
    PromptSettings,
    QuantizationSettings,
    SignalLearning,
    SoftLabels,
    TrainingSettings,
)

__all__ = [
    "AnswerWith",
    "AwpSettings",
    "CandidateName",
    "DEFAULT",
    "ContextView",
    "EmbedderTuning",
    "EnsembleConfig",
    "ExtraQuestions",
    "FamilyName",
    "Language",
    "LoraSettings",
    "MAX_FOLDS",
    "MOST_WEIGHT",
    "OptionScore",
    "PretrainingSettings",
    "PromptSettings",
    "QuantizationSettings",
    "QueryForm",
    "RANKER_NAME",
    "RERANKER",
    "RankerConfig",
    "RankerName",
    "RerankerSettings",
    "RerankerTraining",
    "RetrievalConfig",
    "Retriever",
    "Run",
    "SCORE_OF",
    "SCORE_TEMPERATURE",
    "SIGNALS",
    "Settings",
    "SignalLearning",
    "SignalSettings",
    "SoftLabels",
    "TrackerName",
    "TrainingSettings",
    "TuneSettings",
    "needs_contexts",
]
