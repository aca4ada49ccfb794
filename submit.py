"""Answer an exam with the trained ensemble: python submit.py --questions test.csv --output submission.csv"""

from solution.cli.submit import submit_app

if __name__ == "__main__":
    submit_app()
