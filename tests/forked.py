"""Commands in forks of a process that has imported the libraries.

Importing torch, transformers and peft is most of what a short command does. A fork of a process that has imported them
is a process of its own all the same, with its own exit code, output, signals, working folder and environment, and so
are the processes that it starts for retrieval and for each ranker.

Not for tests of what only a new process shows: imports, memory, and variables that libraries read when they start.
"""

from __future__ import annotations

import functools
import gc
import importlib
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = """
    bitsandbytes bm25s faiss optuna pandas peft peft.utils.transformers_weight_conversion
    pyarrow.dataset pyarrow.parquet scipy.optimize scipy.stats
    sentence_transformers sklearn.feature_extraction.text torch transformers
    transformers.models.bert.modeling_bert transformers.models.llama.modeling_llama
"""
_WORKER = ["-P", "-m", "solution.inference.worker"]
_context = multiprocessing.get_context("forkserver")


def run(
    command: list[str], cwd: Path, environment: dict[str, str], timeout: float, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of Python with this command line (a script, or -m and a module), its output captured as text.

    Args:
        first: Python code that the fork runs before the command, as a new process runs sitecustomize.py.
    """
    _start(environment)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _context.Process(target=_command, args=(command, cwd, environment, out, err, first))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, err.read_bytes())
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


CHECK_SHARES = "import forked; forked.share_in_check()"
"""`first` of a `bundle --check` whose submission imports the libraries once for all of its rankers; what the kernel
wrote into its working folder is left in `working`."""


def share_in_check() -> None:
    """Have the submission of `bundle --check` fork its processes, as `run`'s commands do, and keep what it writes."""
    from solution.kaggle import check

    make, run_notebook = check._environment, check._run_notebook

    def sharing(folder: Path, manifest: dict[str, object]) -> Path:
        python = make(folder, manifest)
        (packages,) = folder.glob("lib/python3*/site-packages")
        (packages / "sitecustomize.py").write_text(
            f"import sys\nif sys.orig_argv[1:] and sys.orig_argv[1].endswith('submit.py'):\n"
            f"    sys.path.append({str(Path(__file__).parent)!r})\n    import forked\n    forked.fork_workers()\n"
        )
        return python

    def kept(python: Path, bundle: Path, attached: Path, root: Path, folder: Path) -> tuple[list[float], str]:
        done = run_notebook(python, bundle, attached, root, folder)
        shutil.copytree(root / "working", "working")
        return done

    check._environment, check._run_notebook = sharing, kept


def fork_workers() -> None:
    """In a submission's first process, before anything else: import the libraries, and fork the other processes."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # as submit.py does, but read when the libraries are imported
    for name in LIBRARIES.split():
        importlib.import_module(name)
    subprocess.Popen = _Popen  # type: ignore[misc]


def _start(environment: dict[str, str]) -> None:
    """Start the process that is forked, if it does not run yet; it ends with this one."""
    own = [path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("solution/**/[a-z]*.py")]
    _context.set_forkserver_preload([*LIBRARIES.split(), *(".".join(path.parts) for path in own)])
    before = dict(os.environ)
    # Libraries read their variables when they are imported.
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _command(command: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path, first: str) -> None:
    """In the fork: do what Python does with this command line."""
    for number, path in enumerate((Path(os.devnull), out, err)):
        stream = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    subprocess.Popen = _Popen  # type: ignore[misc]
    sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).name != "tests")]
    exec(first, {})
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


class _Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Forks the processes of a submission, with all that Popen does for a new program, and starts other programs."""

    def __init__(self, args: list[str], **options: object) -> None:
        if args[1:4] == _WORKER:
            sys.stdout.flush()
            options["preexec_fn"] = functools.partial(_work, args[3:], options.get("env"))
        super().__init__(args, **options)  # type: ignore[call-overload]


def _work(argv: list[str], environment: dict[str, str] | None) -> None:
    """In the fork of a command, which has its pipes as stdin and stdout: run the worker instead of a new program."""
    code = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # one of them tells the command that this process runs
        gc.enable()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        sys.argv = argv
        try:
            importlib.import_module(argv[0]).main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 - as Python ends on it
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
