"""The script that runs all that needs a GPU."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 1  # no pytest-xdist
echo "$*" >> "$CALLS"
[ "$4" = --quick ] && exit 3
exit 0
"""


def test_it_runs_every_file_with_gpu_tests_and_both_benchmarks(tmp_path: Path) -> None:
    """And goes on after a step that fails."""
    python, calls, out = tmp_path / "python", tmp_path / "calls", tmp_path / "out"
    python.write_text(PYTHON)
    python.chmod(0o755)
    its = {**os.environ, "PYTHON": str(python), "CALLS": str(calls)}
    script = ROOT / "jobs/bench/on_gpu.sh"
    ended = subprocess.run([script, out], env=its, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "gpu_quick: exit code 3" in ended.stdout
    tests, *benchmarks = calls.read_text().splitlines()
    assert benchmarks == [
        f"-m jobs.bench gpu --quick --out {out}",
        f"-m jobs.bench gpu --out {out}",
    ]
    files = {word for word in tests.split() if word.startswith("tests/")}
    assert "tests/engine/test_gpu_graphs.py" in files
    of_kernels = {
        f"tests/kernels/{path.name}"
        for path in (ROOT / "tests/kernels").glob("test_*.py")
        if "@everywhere" in path.read_text()
    }
    assert len(of_kernels) > 5
    assert of_kernels <= files
    assert all((ROOT / file).is_file() for file in files)
    assert {path.name for path in out.iterdir()} == {
        "gpu_tests.log",
        "gpu_quick.log",
        "gpu_full.log",
    }
