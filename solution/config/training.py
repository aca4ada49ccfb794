"""Settings of training: LoRA, quantization, prompts, the optimizer, pretraining, and learning from signals."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AliasChoices, Field, model_validator

from solution.config.base import Settings


class LoraSettings(Settings):
    """PEFT's LoraConfig (Hu et al. 2021); the names are PEFT's own."""

    r: int = Field(16, ge=1)
    """The rank of the change that is learnt."""
    lora_alpha: float = Field(32, gt=0)
    """The change is scaled by lora_alpha / r."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """The share of the inputs of the change that is dropped in training."""
    target_modules: list[str] | str | None = None
    """Module names, a regular expression, "all-linear", or null for PEFT's choice for the architecture."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too: none, those of the layers with LoRA, or all."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r), so that a high rank is not damped (Kalajdzievski 2023)."""
    use_dora: bool = False
    """Learn the length of each weight vector apart from its direction (Liu et al. 2024); slower."""
    modules_to_save: list[str] = []
    """More modules trained whole; a family adds its own new head (and BERT's or DeBERTa's pooler)."""
    layers_to_transform: list[int] | int | None = None
    """Numbers of the layers that get LoRA; null: all. The backward pass ends at the lowest of them."""
    layers_pattern: str | None = None
    """The name of the list of layers in the model, where PEFT does not find it by itself."""
    rank_pattern: dict[str, int] = {}
    """Another r for modules whose names match a pattern."""
    alpha_pattern: dict[str, float] = {}
    """Another lora_alpha for modules whose names match a pattern."""


class QuantizationSettings(Settings):
    """QLoRA's 4-bit base weights (Dettmers et al. 2023), by bitsandbytes."""

    kind: Literal["nf4", "fp4"] = "nf4"
    """The sixteen values of a weight: nf4 has them where normally distributed weights lie, fp4 is a small float."""
    double: bool = True
    """Quantise the scales of the blocks too; saves about 0.4 bits a weight."""


class PromptSettings(Settings):
    """The text around a question, for causal and seq2seq rankers: `{context}`, `{question}`, `{option}` are put in."""

    with_context: str = "{context}\n\nQuestion: {question}\nAnswer:"
    """The text of a question with passages."""
    without_context: str = "Question: {question}\nAnswer:"
    """The text of a question without passages."""
    instruction: str = "{context}\n\nInstruction: {question}\nResponse:"
    """Used in the place of `with_context` where a question's `is_question` is false."""
    option: str = " {option}"
    """The text of an option, behind that of the question."""
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


MOST_WEIGHT = 1e6
"""Of a training-only question. Beside it one of the exam counts for nothing; far larger ones overflow when added."""


class ExtraQuestions(Settings):
    """A file of questions that rankers only train on: in no fold, no OOF file, no tuning and no score."""

    questions: str = Field(min_length=1)
    """In any form that exams are read in (docs/formats.md), with answers."""
    weight: float = Field(1.0, gt=0, le=MOST_WEIGHT)
    """Of each question in the loss, where a question of the exam has 1; times its cell in a column `weight`."""
    columns: dict[str, str] = {}
    """This package's name of a column -> the file's, as `--columns` has them: {prompt: question, A: opt1}."""
    encoding: str | None = None
    answers_from: int | None = Field(None, ge=0, le=1)
    keep_html: bool = False
    skip_bad_rows: bool = False


class SoftLabels(Settings):
    """A teacher's probabilities as a part of what the ranker is to say (distillation, Hinton et al. 2015)."""

    teacher: str = Field(min_length=1, validation_alias=AliasChoices("from", "teacher"))  # type: ignore[pydantic-alias]
    """A ranker whose OOF probabilities are in this working folder, or a file of `id` and `p_A, p_B, ...` (its name has
    a dot or a slash). Questions of which it has none have hard labels alone."""
    share: float = Field(0.5, gt=0, le=1)
    """Of the teacher in the aim; the right answer has the rest."""
    temperature: float = Field(2.0, gt=0)
    """The teacher's log-probabilities are divided by it: above 1 they are less sure, and say more of wrong options."""
    independent: bool = False
    """Of a file or an imported ranker: it was trained on no question of this exam, as a model that was only asked. Its
    probabilities are refused without that, since those of a fold's answers would reach the fold's own score."""


class TrainingSettings(Settings):
    epochs: int = Field(2, ge=0)
    """Passes over the training questions; 0: the model answers as it is."""
    learning_rate: float = Field(2e-4, gt=0)
    """The highest value; see warmup_share and schedule."""
    head_learning_rate: float | None = Field(None, gt=0)
    """For the new head and other modules trained whole; null: `learning_rate`."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, of matrices."""
    adam_epsilon: float = Field(1e-6, gt=0)
    optimizer: Literal["adamw", "paged_adamw_8bit", "paged_adamw_32bit"] = "adamw"
    """The paged ones keep their state in 8 or 32 bits in memory that a GPU can swap out (bitsandbytes)."""
    warmup_share: float = Field(0.1, ge=0, le=1)
    """The share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after that."""
    questions_per_step: int = Field(8, ge=1)
    """Questions whose gradients make one step, in all processes together."""
    tokens_per_batch: int = Field(8192, ge=64)
    """Upper bound of the padded tokens of one forward and backward pass; a step is split into as many as needed."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """A gradient with a larger norm is scaled down to it."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third more time, much less memory."""
    option_shuffle: bool = True
    """Give the options another order in each epoch."""
    context_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of training questions shown without a context, drawn anew each epoch."""
    evaluations_per_epoch: int = Field(1, ge=0)
    """How often the fold that is left out is scored during an epoch."""
    keep: Literal["best", "last"] = "last"
    """`best` keeps the evaluation with the highest validation MAP@3 (which then flatters the OOF score a little)."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations in a row without a higher validation MAP@3; null: never."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Evaluate and keep an exponential moving average of the trained weights; 0.99 looks back about 100 steps."""
    awp: AwpSettings | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of the aim that is spread evenly over a question's options: 0.05 to 0.1 where keys may be wrong."""
    r_drop: float | None = Field(None, gt=0)
    """Two passes with other dropout, whose probabilities must agree: their divergence counts so much beside the loss
    (R-Drop, Liang et al. 2021: 0.5 to 5). Doubles the time of a step and its memory; null: one pass."""
    encoding_processes: int | None = Field(None, ge=0, le=64)
    """Processes that turn questions into token ids ahead of the device, in training and in scoring; each takes about
    300 MiB. null: one a core, at most 4, and none for 2,048 questions or fewer."""
    extra: list[ExtraQuestions] = []
    """Questions to train on beside those of the exam. One that repeats, nearly repeats or shares its context with a
    question of the exam is left out wherever that question is."""
    option_count_weight: Literal["none", "log"] = "none"
    """A guess among n options has the loss ln(n), so that questions of many options count for more at first. `log`
    divides each question's loss by ln(n): all begin at the same height."""
    soft_labels: SoftLabels | None = None
    """Learn from a teacher's probabilities too; null: from the right answers alone."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """A checkpoint is written after so many seconds; a killed run goes on from there."""
    stuck_patience: int = Field(60, ge=1)
    """Steps after warm-up in which the mean loss must leave ln(number of options)."""
    tensorboard: bool = False
    """Write event files to WORKDIR/logs/RANKER/fold_K too (needs the package tensorboard)."""

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset(
        {"encoding_processes", "extra", "label_smoothing", "option_count_weight", "r_drop", "soft_labels"}
    )

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


GENERATED = "generated"
"""Of `pretraining.questions`, in the place of a file."""
_GENERATED_COUNT = 2000


class PretrainingSettings(Settings):
    """Training on other questions before the folds, once for a ranker: each fold starts from its weights.

    A ranker that never sees a question again learns to read here what a few hundred questions cannot teach it.
    """

    questions: str = Field(min_length=1)
    """A file of questions with answers, whose column `passage` may name the document that each was made from. Or
    `generated`: questions are made from the corpus (English passages) at the first use, and kept in WORKDIR/cache."""
    count: int | None = Field(None, ge=1)
    """Of generated questions, fewer where the corpus has no more; null: 2,000."""
    epochs: int = Field(1, ge=1)
    learning_rate: float | None = Field(None, gt=0)
    """null: `training.learning_rate`. All other settings are those of `training`."""
    hide_source: float = Field(0.5, ge=0, le=1)
    """The share of the questions that are retrieved for as if the document that they were made from were not in the
    corpus. Without it, the passage that answers is always the first, and the ranker learns to trust the search."""

    @model_validator(mode="after")
    def _counted(self) -> PretrainingSettings:
        if self.count is not None and not self.is_generated:
            raise ValueError("count is of generated questions: set questions to generated, or leave count out")
        return self

    @property
    def is_generated(self) -> bool:
        return self.questions == GENERATED

    @property
    def generated_count(self) -> int:
        return self.count or _GENERATED_COUNT


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
