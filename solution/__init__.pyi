"""The types of the names in `__init__.py`, which imports them when they are first used."""

from solution.api.ensemble import Ensemble as Ensemble
from solution.api.ensemble import load as load
from solution.api.evaluation import evaluate as evaluate
from solution.api.results import Ranking as Ranking
from solution.api.results import Scores as Scores
from solution.errors import UserError as UserError
from solution.interactive.answers import Explanation as Explanation
from solution.questions import Questions as Questions

__version__: str
