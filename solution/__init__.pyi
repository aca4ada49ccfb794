"""The types of the names in `__init__.py`, which imports them when they are first used."""

from solution.api.ensemble import Ensemble as Ensemble
from solution.api.ensemble import load as load
from solution.api.evaluation import evaluate as evaluate
from solution.api.exams import convert as convert
from solution.api.exams import generate as generate
from solution.api.exams import submit as submit
from solution.api.inputs import read_questions as read_questions
from solution.api.results import Answered as Answered
from solution.api.results import EmbedderGain as EmbedderGain
from solution.api.results import ExamTable as ExamTable
from solution.api.results import Files as Files
from solution.api.results import Gain as Gain
from solution.api.results import Parts as Parts
from solution.api.results import Ranking as Ranking
from solution.api.results import Rows as Rows
from solution.api.results import Scores as Scores
from solution.api.results import Tuned as Tuned
from solution.api.retrieval import contexts as contexts
from solution.api.retrieval import index as index
from solution.api.retrieval import train_reranker as train_reranker
from solution.api.retrieval import tune_embedder as tune_embedder
from solution.api.retrieval import tune_index as tune_index
from solution.api.training import import_oof as import_oof
from solution.api.training import make_folds as make_folds
from solution.api.training import make_report as make_report
from solution.api.training import merge as merge
from solution.api.training import train as train
from solution.api.training import tune as tune
from solution.api.whole import Checked as Checked
from solution.api.whole import bundle as bundle
from solution.api.whole import run_demo as run_demo
from solution.api.whole import run_doctor as run_doctor
from solution.api.whole import run_exam as run_exam
from solution.errors import UserError as UserError
from solution.formats.items import Reading as Reading
from solution.interactive.answers import Explanation as Explanation
from solution.questions import Questions as Questions

__version__: str
