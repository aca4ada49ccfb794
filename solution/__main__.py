"""python -m solution VERB"""

from solution.cli.app import app
from solution.suggestions import MODULE

if __name__ == "__main__":
    app(prog_name=MODULE)
