"""A few faults of `benchmarks/faults.py`, for real: nothing corrupt is left, and a second start ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT


def test_a_few_faults_break_no_rule(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--count", "6", "--json"]
    command += ["--workdir", str(tmp_path), "--kinds", "kill", "memory", "damage", "--steps", "index", "tune"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["violations"] == [] and facts["kinds"]["all"]["runs"] == facts["kinds"]["all"]["resumed"] == 6
    assert list(tmp_path.iterdir()) == []
