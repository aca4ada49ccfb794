"""`benchmarks/gpu_check.py`: its checks at tiny sizes on the CPU, and a check that hangs or crashes ends no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import gpu_check

    torch.set_num_threads(1)
    return gpu_check


def test_without_a_gpu_it_says_so(gpu_check, capsys):
    assert gpu_check.main([]) == 2
    assert "torch sees no GPU on this machine. With --cpu" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_the_checks_on_the_cpu(gpu_check, tmp_path, capsys):
    report = tmp_path / "gpu.json"
    assert gpu_check.main(["--cpu", "--output", str(report)]) == 0
    results = {result["check"]: result for result in json.loads(report.read_text())["checks"]}
    assert list(results) == list(gpu_check.SHARES)
    assert {result["state"] for result in results.values()} == {"ok"}
    assert results["overflow in float16"]["facts"]["questions that overflowed"] == 6
    assert results["out of memory"]["facts"]["tokens a batch after it ran out"] > 0
    for name in ("deberta_v3_large", "llama2_7b", "phi3_mini"):
        facts = results[name]["facts"]
        assert all(
            float(facts[what].removesuffix(" tokens/s").replace(",", "")) > 0 for what in ("training", "scoring")
        )
        assert facts["planned MiB"] > 0
    assert "phi3_mini" in capsys.readouterr().out.split("phi3_mini: ok")[1]  # the table


def test_a_check_that_fails_ends_no_other(gpu_check, monkeypatch, tmp_path, capsys):
    import gpu_checks

    def broken(place):
        place.note(half="done")
        raise RuntimeError("no kernel image")

    def missing(place):
        raise gpu_checks.NotTried("no faiss-gpu")

    monkeypatch.setitem(gpu_checks.CHECKS, "card", broken)
    monkeypatch.setitem(gpu_checks.CHECKS, "faiss", missing)
    monkeypatch.setitem(gpu_checks.CHECKS, "streaming", lambda place: None)
    report = tmp_path / "gpu.json"
    assert gpu_check.main(["--cpu", "--only", "card", "faiss", "streaming", "--output", str(report)]) == 1
    results = json.loads(report.read_text())["checks"]
    assert [result["state"] for result in results] == ["failed", "not tried", "ok"]
    assert results[0]["reason"] == "RuntimeError: no kernel image" and results[0]["facts"] == {"half": "done"}
    assert "not tried" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [
        ("import time; time.sleep(60)", 0.6, "not finished in its 1 s"),
        ("import os, sys; print('CUDA error', file=sys.stderr); os._exit(7)", 30, "ended with code 7: CUDA error"),
        ("", 0.1, "the time is over"),
    ],
)
def test_a_check_that_hangs_or_crashes(gpu_check, monkeypatch, code, seconds, reason):
    monkeypatch.setattr(gpu_check, "LEAST_SECONDS", 0.5)
    result = gpu_check.in_own_process("card", seconds, lambda name, path: [sys.executable, "-c", code])
    assert reason in result["reason"] and result["state"] == ("not tried" if seconds < 0.5 else "failed")


def test_cards(gpu_check):
    from gpu_models import operations, peak_of

    names = {
        "Tesla T4": 65,
        "Tesla P100-PCIE-16GB": 18.7,
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H100 PCIe": 756,
        "NVIDIA H200": 989,
        "NVIDIA A100-SXM4-40GB": 312,
        "NVIDIA A10G": 70,
        "NVIDIA L4": 121,
        "NVIDIA L40": None,
        "NVIDIA GeForce RTX 3080": 59.5,
        "NVIDIA GeForce RTX 3080 Ti": None,
    }
    assert {name: peak_of(name) for name in names} == names
    # Llama-2-7B has 6.476e9 weights in its layers' linear maps: 32 x (4 x 4096^2 + 3 x 4096 x 11008).
    assert operations("llama2_7b", 32, 0) == 2 * 6_476_005_376 == 8 * operations("llama2_7b", 4, 0)
    # DeBERTa-v3-large: 24 x (4 x 1024^2 + 2 x 1024 x 4096), and 4 x 768 x 1024 a layer for attention.
    assert operations("deberta_v3_large", 24, 768) == 24 * (2 * 12_582_912 + 4 * 768 * 1024)


def test_it_runs_as_a_command():
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "--only CHECK" in done.stdout and "less than eight minutes" in done.stdout
