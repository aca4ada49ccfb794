"""Heads, prompts and number formats of the rankers, side by side on one fixed sample of a real exam.

    python benchmarks/heads.py --questions EXAM/questions.csv --corpus EXAM/passages.csv.gz --workdir heads_run \\
        --group-column module

Each variant is trained and scored by the code of `train_fold.py`, fold by fold; what is finished is not
done again, so the script can be stopped and started. The last table is of out-of-fold scores, with
95 % bootstrap intervals, paired ones for the difference to the reference variant. `--json` prints one
JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from solution import metrics, oof
from solution.command import command
from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run
from solution.config_files import apply_overrides
from solution.files import content_hash
from solution.questions import read_questions
from solution.training.run import train_folds
from solution.weights import read_metrics
from solution.workdir import Workdir

CONFIGS = Path(__file__).parent.parent / "configs" / "demo"
NF4 = {"kind": "nf4", "double": True}
ZERO = {"training.epochs": 0, "lora": None}
CHAT = {"prompt.chat": True, "prompt.option": "{option}"}
INSTRUCTION = (
    "Read the text, then answer the question with one of the options.\n\n{context}\n\nQuestion: {question}\nAnswer:"
)
LISTED = {"show_options": True}

# Each names the demo config that it starts from and what it changes there.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "likelihood": ("smollm2", {**ZERO, "head": "likelihood"}),
    "likelihood-closed": ("smollm2", {**ZERO, "head": "likelihood", "passages": 0}),
    "less-option": ("smollm2", {**ZERO, "head": "likelihood", "likelihood_prior": "option"}),
    "less-question": ("smollm2", {**ZERO, "head": "likelihood", "likelihood_prior": "question"}),
    "less-question-whole": (
        "smollm2",
        {**ZERO, "head": "likelihood", "likelihood_prior": "question", "likelihood_prior_share": 1.0},
    ),
    "likelihood-last": (
        "smollm2",
        {**ZERO, "head": "likelihood", "prompt.with_context": "Question: {question}\n\n{context}\n\nAnswer:"},
    ),
    "likelihood-instruction": ("smollm2", {**ZERO, "head": "likelihood", "prompt.with_context": INSTRUCTION}),
    "likelihood-chat": ("smollm2", {**ZERO, "head": "likelihood", **CHAT}),
    "likelihood-3shot": ("smollm2", {**ZERO, "head": "likelihood", "prompt.few_shot": 3, "max_tokens": 448}),
    "likelihood-listed": ("smollm2", {**ZERO, **LISTED, "head": "likelihood", "max_tokens": 384}),
    "letters": ("smollm2", {**ZERO, "head": "letters", "rotations": 4, "max_tokens": 384}),
    "letters-chat": ("smollm2", {**ZERO, "head": "letters", "rotations": 4, "max_tokens": 384, **CHAT}),
    "likelihood-nf4": ("smollm2", {**ZERO, "head": "likelihood", "quantization": NF4}),
    "last-token": ("smollm2", {"head": "last_token"}),
    "both": ("smollm2", {"head": "both"}),
    "both-less-question": ("smollm2", {"head": "both", "likelihood_prior": "question"}),
    "both-others": ("smollm2", {"head": "both", "head_others": True}),
    "letters-trained": ("smollm2", {"head": "letters", "max_tokens": 384}),
    "both-nf4": ("smollm2", {"head": "both", "quantization": NF4}),
    "minilm": ("minilm", {"retrieval_prior": False, "training.stuck_patience": 10_000}),
    "minilm-prior": ("minilm", {}),
}
REFERENCE = "likelihood"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--corpus", required=True, help="the passages to retrieve from")
    parser.add_argument("--workdir", type=Path, required=True, help="takes folds, index, weights and OOF")
    parser.add_argument("--group-column", help="a column whose rows with the same value stay in one fold")
    parser.add_argument("--sample", type=int, default=300, help="questions, chosen by the hash of their ids")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="these variants (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    names = options.only or list(VARIANTS)
    questions = read_questions(options.questions)
    order = sorted(range(len(questions)), key=lambda row: content_hash(questions.ids[row]))
    questions = questions.subset(sorted(order[: options.sample]))
    ensemble = EnsembleConfig(rankers=names, folds=options.folds, group_column=options.group_column)
    retrieval = RetrievalConfig(**{**_yaml("retrieval"), "corpus": options.corpus})
    run = Run(rankers=[variant(name) for name in names], retrieval=retrieval, ensemble=ensemble)
    workdir = Workdir.open(options.workdir)
    train_folds(run, questions, workdir, range(options.folds))
    rows = compare(workdir, names)
    print_rows(rows, questions.max_options, len(questions))
    if options.json:
        print(json.dumps({"questions": len(questions), "folds": options.folds, "variants": rows}))


def variant(name: str) -> RankerConfig:
    """A variant's settings."""
    base, changes = VARIANTS[name]
    plain = {"likelihood_prior": "none"} if base == "smollm2" else {}
    typed = [(key.split("."), value) for key, value in {**plain, **changes, "name": name}.items()]
    return RankerConfig.model_validate(apply_overrides(_yaml(base), typed))


def _yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


def compare(workdir: Workdir, names: list[str]) -> list[dict[str, Any]]:
    """A record for each variant, from its OOF parts and its folds' metrics."""
    table = oof.load_oof(workdir, names)
    credits = {name: metrics.credit_at_k(table.probabilities[name], table.answers) for name in names}
    reference = credits[REFERENCE if REFERENCE in names else names[0]]
    rows = []
    for name in names:
        facts = []
        for fold in sorted(set(table.folds.tolist())):
            facts.append(read_metrics(workdir.fold_weights(name, fold), "Run this again."))
        difference = metrics.bootstrap_interval(credits[name] - reference)
        rows.append(
            {
                "variant": name,
                "map3": round(float(credits[name].mean()), 4),
                "interval": [round(value, 4) for value in metrics.bootstrap_interval(credits[name])],
                "difference": round(float((credits[name] - reference).mean()), 4),
                "difference_interval": [round(value, 4) for value in difference],
                "precision1": round(metrics.precision_at_k(table.probabilities[name], table.answers, k=1), 4),
                "log_loss": round(metrics.log_loss(table.probabilities[name], table.answers), 4),
                "minutes": round(sum(fact["seconds"] for fact in facts) / 60, 1),
                "peak_memory_mib": round(max(fact["peak_memory_mib"] for fact in facts)),
                "trainable_parameters": facts[0].get("trainable_parameters", 0),
            }
        )
    return rows


def print_rows(rows: list[dict[str, Any]], options: int, questions: int) -> None:
    print(f"\n{questions} questions of up to {options} options; differences to {rows[0]['variant']}, paired")
    heads = f"{'MAP@3':>7} {'95 % interval':>16}{'difference':>11} {'paired interval':>17}{'P@1':>7}{'min':>6}"
    print(f"{'variant':24}{heads}")
    for row in rows:
        low, high = row["interval"]
        less, more = row["difference_interval"]
        print(
            f"{row['variant']:24}{row['map3']:7.3f} {f'{low:.3f} to {high:.3f}':>16}{row['difference']:+11.3f} "
            f"{f'{less:+.3f} to {more:+.3f}':>17}{row['precision1']:7.3f}{row['minutes']:6.1f}"
        )


if __name__ == "__main__":
    command(main)()
