"""A job starts without what it does not need: every rank pays for each import."""

import subprocess
import sys

SLOW = ("torch._dynamo", "triton", "transformers.generation.utils", "datasets", "lm_eval")


def test_a_diffusion_job_imports_no_compiler_and_nothing_of_the_rival() -> None:
    code = f"import sys, pipeline.run; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
