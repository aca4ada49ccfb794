"""A GPU is used when a product on it has been right; any other one is told, and the work goes on on the CPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline import ROOT, run_python

from solution import gpu
from solution.device import choose_device, free_memory
from solution.inference.memory import available_memory


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    gpu._failure.cache_clear()
    gpu.warn_of_gpu_problem.cache_clear()
    yield
    gpu._failure.cache_clear()
    gpu.warn_of_gpu_problem.cache_clear()


def no_kernel(*_: object, **__: object) -> torch.Tensor:
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")


def test_a_gpu_that_dies_at_the_first_operation_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    assert not gpu.gpu_works() and choose_device().kind == "cpu" and choose_device("float32").kind == "cpu"
    free_memory()
    assert available_memory() > 0  # of the machine
    told = capsys.readouterr().err
    assert told.count("WARNING: the CPU is used") == 1
    assert "cannot compute on this machine's GPU (CUDA error: no kernel image" in " ".join(told.split())


def test_a_product_that_is_wrong_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, **_: ones(*shape) * 2)
    assert not gpu.gpu_works() and "a product is wrong" in (gpu.gpu_problem() or "")
    gpu._failure.cache_clear()
    monkeypatch.setattr(torch, "ones", lambda *shape, **_: ones(*shape))
    assert gpu.gpu_works() and gpu.gpu_problem() is None


def test_a_driver_without_a_gpu_for_torch_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path)
    assert gpu.gpu_problem() is None  # the tests hide a GPU (CUDA_VISIBLE_DEVICES)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "has an NVIDIA driver" in (gpu.gpu_problem() or "") and not gpu.gpu_works()
    monkeypatch.setattr(gpu, "_DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.gpu_problem() is None


# Only for our own code: the build of torch that the tests run with lacks functions that others call where a GPU is.
P100 = """
import sys
import torch
torch.cuda.is_available = lambda: sys._getframe(1).f_globals["__name__"].startswith("solution")
"""


def test_a_submission_goes_on_on_the_cpu_and_says_so(finished: Path, tmp_path: Path) -> None:
    """torch without CUDA says that it is available and raises at the first operation, as on a P100."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(P100)
    folder, output = tmp_path / "exam", tmp_path / "s.csv"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "cache" / "submission")  # nothing is taken from the journal
    done = run_python(
        [str(ROOT / "submit.py"), "--workdir", str(folder), "--output", str(output)],
        cwd=folder,
        new=True,
        PYTHONPATH=f"{tmp_path / 'hook'}:{ROOT}",
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING: the rankers compute on the CPU: torch" in " ".join(done.stderr.split())
    assert output.read_text() == (finished / "submission.csv").read_text()
    report = json.loads(output.with_name("s.report.json").read_text())
    assert "cannot compute on this machine's GPU" in report["gpu_problem"]
    tiny = next(each for each in report["rankers"] if each["ranker"] == "tiny")
    assert tiny["state"] == "finished" and (tiny["computed_on"] or "").startswith("cpu in ")


def test_a_search_that_does_not_fit_on_the_gpu_goes_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    from solution.retrieval import approximate

    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (50, 3))
    monkeypatch.setattr(approximate, "_BLOCK", 20)
    expected = approximate.nearest(queries, vectors, 5)
    calls = []

    def on_gpu(resources: object, *arguments: Any, **options: Any) -> Any:
        calls.append(resources)
        if len(calls) == 2:
            raise RuntimeError("Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail")
        return faiss.knn(*arguments, **options)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "the GPU", raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", on_gpu, raising=False)
    found = approximate.nearest(queries, vectors, 5)
    assert calls == ["the GPU"] * 2
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
