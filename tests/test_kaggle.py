"""The Kaggle bundle: what it holds, how a kernel finds it, and a submission from it that may only read it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pipeline import HEADER, ROWS, run

from solution.doctor.examine import examine
from solution.errors import UserError
from solution.files import read_manifest, write_json, write_manifest
from solution.kaggle.base_models import hub_folder, model_files
from solution.kaggle.bundle import hash_before
from solution.kaggle.check import check_bundle
from solution.kaggle.kernel import BUNDLE, COMPETITION, ROOT, find_place
from solution.kaggle.upload import Address
from solution.kaggle.wheels import Wheels, lacking_packages, needed_packages, platform_tags, torch_build
from solution.packages import closure, requirements

PUBLIC = HEADER.replace(",answer", "") + "".join(
    f"{row},Which body is number {row} from the Sun?,planet {row},moon of {row},star near {row}\n" for row in range(24)
)
MAKE = ("bundle", "--no-wheels", "--name", "my-bundle", "--user", "me", "--output")


@pytest.fixture(scope="session")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "made"
    public = folder.with_name("public.csv")
    public.write_text(PUBLIC)
    done = run(*MAKE, str(folder), "--public-test", str(public), cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "public questions are not known" not in done.stderr
    return folder


def test_a_bundle_over_another_keeps_its_public_questions(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = read_manifest(bundle, BUNDLE, "")["public"]
    (address := Address("my-bundle", "me")).check()
    assert hash_before(bundle, address) == known and "--public-test names others" in capsys.readouterr().err
    assert hash_before(bundle, Address("my-bundle", "me", "another-contest")) is None
    assert hash_before(tmp_path, address) is None and hash_before(tmp_path / "new", address) is None


# --- what it holds -------------------------------------------------------------------------


def test_a_bundle_holds_what_the_ensemble_uses(bundle: Path, finished: Path) -> None:
    manifest = read_manifest(bundle, BUNDLE, "")
    listed = set(manifest["files"])
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert there - listed == {"manifest.json", "dataset-metadata.json", "kernel-metadata.json"}
    index = next((finished / "cache").glob("index-*")).name
    for name in (
        "submit.py",
        "submission.ipynb",
        "requirements.txt",
        "README.md",
        "sample.csv",
        "solution/cli/app.py",
        "solution/demo/exam.csv",
        "configs/tiny.yaml",
        "weights/ensemble.json",
        "weights/tiny/fold_2/adapter_model.safetensors",
        "weights/similarity/fold_0/manifest.json",
        f"cache/{index}/vectors.npy",
        f"cache/{index}/manifest.json",
        "models/bert/model.safetensors",
    ):
        assert name in there, name
    assert manifest["models"]["tiny.model"] == "models/bert"
    assert (bundle / manifest["models"]["retrieval.embedder"] / "1_Pooling" / "config.json").is_file()
    assert not [name for name in there if name.startswith(("oof/", "logs/", "cache/contexts", "cache/checkpoints"))]
    assert "A" not in [line.rsplit(",", 1)[-1] for line in (bundle / "sample.csv").read_text().splitlines()[1:]]


def test_metadata_is_what_kaggle_asks_for(bundle: Path) -> None:
    dataset = json.loads((bundle / "dataset-metadata.json").read_text())
    kernel = json.loads((bundle / "kernel-metadata.json").read_text())
    assert dataset == {"title": "My Bundle", "id": "me/my-bundle", "licenses": [{"name": "other"}]}
    assert kernel["enable_internet"] == "false" and kernel["enable_gpu"] == "true" and kernel["is_private"] == "true"
    assert kernel["dataset_sources"] == ["me/my-bundle"] and kernel["competition_sources"] == [COMPETITION]
    # Kaggle makes the slug of the title.
    assert kernel["id"] == "me/" + kernel["title"].lower().replace(" ", "-")
    assert (bundle / kernel["code_file"]).is_file()
    notebook = json.loads((bundle / "submission.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")
    assert "--no-index" in json.dumps(notebook)


def test_a_folder_that_is_no_bundle_is_not_replaced(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run(*MAKE, str(tmp_path / "mine"), cwd=finished)
    assert done.returncode == 2 and "is not a bundle" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--output", "b", "--no-wheels", "--name", "My Bundle"), "--name"),
        (("--output", "b", "--no-wheels", "--name", "short"), "6 to 50"),
        (("--output", "b", "--no-wheels", "--user", "a/b"), "--user"),
        (("--output", "b", "--no-wheels", "--skip", "torch"), "neither"),
        (("--output", "b", "--no-wheels", "--with-torch"), "neither"),
        (("--output", "b", "--skip", "Torch", "--with-torch"), "contradict"),
        (("--output", "b", "--no-wheels", "--public-test", "nowhere.csv"), "nowhere.csv"),
        (("--output", "b", "--skip", "no-such-package"), "no-such-package"),
        (("--output", "b", "--python", "3"), "--python"),
        (("--output", "b", "--wheels", "configs"), "no wheel"),
        ((), "either --output"),
        (("--output", "b", "--check", "b"), "either --output"),
        (("--check", "configs"), "manifest"),
        (("--output", "b", "--no-wheels", "--workdir", "configs"), "solution tune"),
        (("--output", "b", "--no-wheels", "--workdir", "nowhere"), "--workdir nowhere is not there"),
    ],
)
def test_wrong_arguments_are_refused(finished: Path, arguments: tuple[str, ...], expected: str) -> None:
    from typer.testing import CliRunner

    from solution.cli.app import app

    before = os.getcwd()
    os.chdir(finished)
    try:
        done = CliRunner().invoke(app, ["bundle", *arguments])
        assert not Path("b").exists()
        assert not Path("nowhere").exists()
    finally:
        os.chdir(before)
    assert done.exit_code == 2 and expected in done.stderr, done.stderr


def test_a_changed_file_a_missing_model_and_another_python_are_told(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy, copy_function=os.link)
    shutil.rmtree(copy / "models" / "bert")
    with pytest.raises(UserError, match="models/bert"):
        check_bundle(copy)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = {name: hash_ for name, hash_ in manifest["files"].items() if "models/bert" not in name}
    (copy / "manifest.json").unlink()
    write_json(
        copy / "manifest.json", manifest | {"missing": {"models/bert": "hf download a/b --local-dir models/bert"}}
    )
    with pytest.raises(UserError, match="run `hf download a/b --local-dir models/bert`"):
        check_bundle(copy)
    shutil.copytree(bundle / "models" / "bert", copy / "models" / "bert")
    write_json(copy / "manifest.json", manifest | {"python": "3.7"})
    with pytest.raises(UserError, match="is for Python 3.7"):
        check_bundle(copy)
    (copy / "submit.py").unlink()
    (copy / "submit.py").write_text("print('something else')")
    with pytest.raises(UserError, match="submit.py is not the file that was written"):
        check_bundle(copy)


def test_without_its_packages_there_is_no_bundle(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    done = run("bundle", "--skip", "torch", "--output", str(tmp_path / "b"), cwd=finished)
    assert done.returncode == 2 and "cannot be had" in done.stderr and "--wheels DIR" in done.stderr
    assert not list(tmp_path.iterdir())


def test_models_may_be_left_out(finished: Path, tmp_path: Path, kernel: Path) -> None:
    done = run(*MAKE, str(tmp_path / "b"), "--no-models", cwd=finished)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "b", BUNDLE, "")
    assert not (tmp_path / "b" / "models").exists()
    assert manifest["missing"]["models/bert"].startswith("cp -rL") and manifest["missing"]["models/bert"] in done.stderr
    assert set(manifest["missing"]) == set(manifest["models"].values())
    assert manifest["public"] is None and "public questions are not known" in done.stderr
    settings = [f"{key}=/else/where" for key in manifest["models"]]
    assert find_place(tmp_path / "b", Path("q.csv"), None, settings).overrides == settings
    with pytest.raises(UserError, match="cp -rL"):
        find_place(tmp_path / "b", Path("q.csv"), None, settings[:1])


def test_a_whole_model_is_found_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    assert hub_folder("some/model", None) is None  # no weights yet
    (snapshot / "model.safetensors").write_text("")
    assert hub_folder("some/model", None) == snapshot
    assert hub_folder("some/model", "v2") is None and hub_folder("other/model", None) is None


def test_model_files_are_those_that_are_read(tmp_path: Path) -> None:
    names = ["config.json", "tokenizer.json", "a.safetensors", "consolidated.safetensors", "pytorch_model.bin", "x.pt"]
    for name in names:
        (tmp_path / name).write_text("{}")
    assert {str(path) for path in model_files(tmp_path)} == set(names[:4])
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"w": "a.safetensors"}})
    assert {str(path) for path in model_files(tmp_path)} == {*names[:3], "model.safetensors.index.json"}
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(UserError, match="a.safetensors is missing"):
        model_files(tmp_path)
    for name in ("model.safetensors.index.json", "consolidated.safetensors"):
        (tmp_path / name).unlink()
    assert {str(path) for path in model_files(tmp_path)} == {"config.json", "tokenizer.json", "pytorch_model.bin"}


# --- packages ------------------------------------------------------------------------------


def test_what_is_skipped_takes_what_only_it_needs_along() -> None:
    every = closure(requirements("cpu"), "3.12")
    fewer = closure(requirements("cpu"), "3.12", ["torch"])
    assert {"torch", "sympy", "numpy", "transformers", "faiss-cpu"} <= set(every.pins) and not every.skipped
    assert {"torch", "sympy", "mpmath"} <= fewer.skipped  # sympy is torch's alone
    assert "numpy" in fewer.pins and set(fewer.pins) | fewer.skipped == set(every.pins)
    assert f"numpy=={every.pins['numpy']}" in fewer.lines()


def wheel(folder: Path, name: str, version_text: str = "") -> None:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("torch/version.py", version_text)


def test_torch_is_left_to_the_kernel_unless_it_is_asked_for() -> None:
    assert Wheels().left_to_kernel == ["torch"] and Wheels(skip=("scipy",)).left_to_kernel == ["scipy", "torch"]
    assert Wheels(with_torch=True).left_to_kernel == []
    pins = needed_packages(Wheels()).pins
    assert {"sentencepiece", "protobuf", "faiss-cpu", "transformers"} <= set(pins)
    assert not {"torch", "triton", "sympy"} & set(pins) and not [name for name in pins if name.startswith("nvidia")]
    assert "torch" in needed_packages(Wheels(with_torch=True)).pins


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cuda: Optional[str] = '13.0'\n", "CUDA 13.0, which needs an NVIDIA driver of version 580 or newer"),
        ('cuda = "12.6"\n', "CUDA 12.6, which needs an NVIDIA driver of version 525 or newer"),
        ("cuda: Optional[str] = '99.1'\n", "CUDA 99.1"),
    ],
)
def test_the_cuda_of_a_torch_among_the_wheels_is_told(tmp_path: Path, text: str, told: str) -> None:
    wheel(tmp_path, "torchvision-0.9-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert torch_build(tmp_path) is None
    name = "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    wheel(tmp_path, name, "__version__ = '2.13.0'\ncuda: Optional[str] = None\n")
    assert torch_build(tmp_path) is None
    (tmp_path / name).unlink()
    wheel(tmp_path, name, f"__version__ = '2.13.0'\n{text}hip: Optional[str] = None\n")
    assert str(torch_build(tmp_path)) == f"torch 2.13.0 is built for {told}"


def test_a_folder_of_wheels_is_compared_with_what_is_needed(tmp_path: Path) -> None:
    wheel(tmp_path, "protobuf-6.0-cp310-abi3-manylinux2014_x86_64.whl")
    wheel(tmp_path, "sentencepiece-0.2-cp313-cp313-manylinux_2_28_x86_64.whl")  # of another Python
    wheel(tmp_path, "scipy-1.17.1-cp312-cp312-win_amd64.whl")
    wheel(tmp_path, "typer-0.20-py3-none-any.whl")
    lacking = lacking_packages(tmp_path, Wheels(folder=tmp_path))
    assert {"sentencepiece", "scipy", "torch"} <= set(lacking) and not {"protobuf", "typer"} & set(lacking)


def test_requirements_are_those_of_setup_cfg() -> None:
    wanted = {each.name: str(each.specifier) for each in requirements("cpu")}
    assert wanted["torch"].startswith(">=") and "faiss-cpu" in wanted and "faiss-gpu" not in wanted


def test_older_platforms_are_taken_too() -> None:
    tags = platform_tags("manylinux_2_28_x86_64")
    assert tags[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux_2_34_x86_64" not in tags
    assert "manylinux_2_28_x86_64" not in platform_tags("manylinux2014_x86_64")
    assert {"manylinux1_x86_64"} == {tag for tag in platform_tags("manylinux_2_10_x86_64") if "_2_" not in tag}
    assert platform_tags("win_amd64") == ["win_amd64"]


# --- in a kernel ---------------------------------------------------------------------------


def small_bundle(folder: Path, **more: object) -> Path:
    """A bundle as far as finding it goes."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "ensemble.json").write_text("{}")
    (folder / "cache" / "index-1").mkdir(parents=True)
    for name in ("sample.csv", "test.csv"):
        (folder / name).write_text(HEADER + ROWS)
    for name in ("m", "n"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text("{}")
    about = {"name": "b", "user": "me", "python": None, "skipped": [], "competition": "the-exam"}
    about |= {"models": {"a.model": "models/m", "b.model": "models/n"}, "missing": {}}
    write_manifest(folder, BUNDLE, **(about | more))
    return folder


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "kaggle"
    for name in ("input", "working", "temp"):
        (root / name).mkdir(parents=True)
    monkeypatch.setenv(ROOT, str(root))
    monkeypatch.chdir(root / "working")
    return root


@pytest.mark.parametrize(
    ("data", "exam"), [("input/b", "input/the-exam"), ("input/datasets/me/b", "input/competitions/the-exam")]
)
def test_a_kernel_finds_bundle_and_questions(kernel: Path, data: str, exam: str) -> None:
    bundle = small_bundle(kernel / data)
    for folder in (exam, "input/another-exam"):
        (kernel / folder).mkdir(parents=True)
        (kernel / folder / "test.csv").write_text(HEADER + ROWS)
    place = find_place(None, None, None, ["b.model=mine"])
    assert place.questions == kernel / exam / "test.csv"
    assert place.output == kernel / "working" / "submission.csv"
    assert place.overrides == [f'a.model="{bundle / "models" / "m"}"', "b.model=mine"]
    assert place.workdir.root.parent == kernel / "temp"
    assert place.workdir.ensemble.samefile(bundle / "weights" / "ensemble.json")
    assert [path.name for path in place.workdir.cache.iterdir()] == ["index-1"]
    assert find_place(None, None, None, ()).workdir == place.workdir  # started again, it goes on in the same folder
    given = find_place(None, Path("q.csv"), Path("o.csv"), ())
    assert (given.questions, given.output) == (Path("q.csv"), Path("o.csv"))


def test_a_kernel_says_what_it_lacks(kernel: Path) -> None:
    bundle = small_bundle(kernel / "input" / "b")
    with pytest.raises(UserError, match="no test.csv.*the-exam"):
        find_place(None, None, None, ())
    shutil.rmtree(bundle / "models" / "m")
    with pytest.raises(UserError, match="models/m"):
        find_place(None, Path("q.csv"), None, ())
    shutil.copytree(bundle, kernel / "input" / "c")
    with pytest.raises(UserError, match="several bundles"):
        find_place(None, Path("q.csv"), None, ())


def test_the_doctor_tells_of_a_kernels_bundles(kernel: Path) -> None:
    for name in ("b", "c"):
        small_bundle(kernel / "input" / name)
    report = examine(Path(), Path("configs"))
    assert report.state == "error" and "several bundles" in report.findings[0].found


def test_without_a_bundle_or_with_an_own_ensemble_nothing_changes(kernel: Path) -> None:
    plain = find_place(None, None, None, ["x=1"])
    assert (plain.workdir.root, plain.questions, plain.output) == (Path(), None, Path("submission.csv"))
    small_bundle(kernel / "input" / "b")
    Path("weights").mkdir()
    Path("weights/ensemble.json").write_text("{}")
    assert find_place(None, None, None, ()).workdir.root == Path()


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": {"a.model": "../outside"}},
        {"models": {"a.model": "/etc"}},
        {"models": {"a.model": 1}},
        {"models": None},
        {"missing": {"../outside": "hf download a/b"}},
        {"user": "../me"},
        {"python": "3"},
        {"skipped": None},
    ],
)
def test_a_manifest_that_leads_out_of_the_bundle_is_refused(kernel: Path, wrong: dict[str, object]) -> None:
    small_bundle(kernel / "input" / "b", **wrong)
    with pytest.raises(UserError, match="corrupt"):
        find_place(None, Path("q.csv"), None, ())


def test_the_notebook_runs_in_a_new_environment(bundle: Path, finished: Path) -> None:
    """The answers are, to the byte, those of the working folder that the bundle was made from."""
    checked = check_bundle(bundle)
    assert set(checked.seconds) == {"hashes of all files", "virtual environment", "install", "submission"}
    assert checked.submission == (finished / "submission.csv").read_text()
    assert checked.questions == 9 and not [line for line in checked.remarks if "public run" in line]
    assert not list(bundle.glob("cache/contexts-*"))
