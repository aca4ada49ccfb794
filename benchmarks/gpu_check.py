"""Tries on this machine's GPU all that only a GPU runs, in less than eight minutes, and measures its speed.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --output gpu.json --only streaming faiss
    python benchmarks/gpu_check.py --cpu

It needs torch and this package's requirements, and no model files: it makes models with random weights (the checks are
in `gpu_checks.py`, the models in `gpu_models.py`). Every check runs in a process of its own with its share of the
time, so that a check that fails, hangs or crashes ends no other. With `--cpu` the same checks run at tiny sizes on the
CPU, in this process and without a time limit: that shows that they work, and nothing about a GPU.

Exit code 0: no check failed; 1: some did; 2: there is no GPU that torch can use, and no `--cpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TOTAL_SECONDS = 470.0
LEAST_SECONDS = 5.0  # a check with less time is not started
# Shares of the time that is left for a check and those behind it; what a check does not use the others have.
SHARES = {
    "card": 1.0,
    "number formats": 2.0,
    "overflow in float16": 1.0,
    "4-bit scoring": 1.0,
    "QLoRA": 1.5,
    "streaming": 1.5,
    "faiss": 1.0,
    "DeBERTa's attention": 1.0,
    "out of memory": 1.0,
    "deberta_v3_large": 3.0,
    "llama2_7b": 3.0,
    "phi3_mini": 3.0,
}
Result = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.worker:
        write(options.output, run_check(options.worker, options.cpu))
        return 0
    from solution.gpu import gpu_problem, gpu_works

    if not options.cpu and not gpu_works():
        why = gpu_problem() or "torch sees no GPU on this machine"
        print(f"error: {why}. With --cpu the same checks run at tiny sizes on the CPU", file=sys.stderr)
        return 2
    started = time.monotonic()
    names = options.only or list(SHARES)
    results: list[Result] = []
    for number, name in enumerate(names):
        print(f"{name} ...", flush=True)
        if options.cpu:
            result = run_check(name, cpu=True)
        else:
            share = SHARES[name] / sum(SHARES[each] for each in names[number:])
            result = in_own_process(name, share * (TOTAL_SECONDS - (time.monotonic() - started)))
        results.append(result)
        print(line(result), flush=True)
    print_table(results)
    report = {"seconds": round(time.monotonic() - started, 1), "cpu": options.cpu, "checks": results}
    if options.output is not None:
        write(options.output, report)
    return int(any(result["state"] == "failed" for result in results))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the same checks at tiny sizes on the CPU")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), metavar="CHECK", help=", ".join(SHARES))
    parser.add_argument("--output", type=Path, metavar="FILE", help="the results as JSON")
    parser.add_argument("--worker", choices=list(SHARES), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# --- one check -----------------------------------------------------------------------------


def run_check(name: str, cpu: bool) -> Result:
    """Run a check here. Its state is `ok`, `failed`, or `not tried`; `facts` is what it measured."""
    if cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Imported here: it loads torch, and the first process only waits for others.
    import gpu_checks

    started = time.monotonic()
    result: Result = {"check": name, "state": "ok", "reason": "", "facts": {}}
    with tempfile.TemporaryDirectory() as folder:
        place = gpu_checks.Place(Path(folder), cpu, result["facts"])
        try:
            gpu_checks.CHECKS[name](place)
        except gpu_checks.NotTried as error:
            result |= {"state": "not tried", "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever a driver or a library raises, the other checks go on
            result |= {"state": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def in_own_process(name: str, seconds: float, command: Callable[[str, Path], list[str]] | None = None) -> Result:
    """Run a check in a new process, which is ended when its time is over.

    Args:
        command: gives the process's command line from the check's name and the file for its result.
    """
    if seconds < LEAST_SECONDS:
        return _failed(name, "not tried", "the time is over", 0.0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        try:
            line = command(name, path) if command else _own_command(name, path)
            done = subprocess.run(line, timeout=seconds, stderr=subprocess.PIPE, text=True, env=_environment())
        except subprocess.TimeoutExpired:
            return _failed(name, "failed", f"not finished in its {seconds:.0f} s", time.monotonic() - started)
        if not path.exists():
            last = " ".join(done.stderr.strip().splitlines()[-3:])[-400:]
            return _failed(
                name, "failed", f"its process ended with code {done.returncode}: {last}", time.monotonic() - started
            )
        result: Result = json.loads(path.read_text())
    return result


def _own_command(name: str, path: Path) -> list[str]:
    return [sys.executable, __file__, "--worker", name, "--output", str(path)]


def _environment() -> dict[str, str]:
    """The variables of a check's process: this package is found from wherever the command was started."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, "PYTHONPATH": paths, **quiet}


def _failed(name: str, state: str, reason: str, seconds: float) -> Result:
    return {"check": name, "state": state, "reason": reason, "facts": {}, "seconds": round(seconds, 1)}


# --- output --------------------------------------------------------------------------------


def write(path: Path, value: Any) -> None:
    from solution.files import write_json

    write_json(path, value)


def line(result: Result) -> str:
    return f"{result['check']}: {result['state']} in {result['seconds']:.1f} s {result['reason']}".rstrip()


def print_table(results: Sequence[Result]) -> None:
    width = max(len(result["check"]) for result in results)
    print()
    for result in results:
        head = f"{result['check']:{width}}  {result['state']:9}  {result['seconds']:6.1f} s"
        print(f"{head}  {result['reason']}".rstrip())
        for name, value in result["facts"].items():
            print(f"{'':{width}}    {name}: {value}")


if __name__ == "__main__":
    # Libraries read these when they are imported.
    os.environ.update(_environment())
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    raise SystemExit(main())
