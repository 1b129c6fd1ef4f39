"""Kernels compile for an H100 on a machine without one."""

import os
import subprocess
import sys

import pytest


def compile_kernels(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    its = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "engine.kernels.compile", *arguments],
        env=its | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_kernel() -> None:
    done = compile_kernels("--only", "norm of 2048, bf16")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = [line for line in done.stdout.splitlines() if "add_norm_kernel" in line]
    warps, registers, stack, _ = row.split()[-4:]
    assert (int(warps), int(stack)) == (4, 0)
    assert 16 <= int(registers) <= 255
    assert done.stdout.splitlines()[-1].startswith("1 kernels, 0 take more")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--only", "no such case"], {}, "--only 'no such case': no case has this in its name"),
        ([], {"TRITON_INTERPRET": "1"}, "TRITON_INTERPRET=1: nothing would be compiled; unset it"),
    ],
    ids=["no-case", "interpreted"],
)
def test_what_cannot_be_compiled(
    arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = compile_kernels(*arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == message


def test_a_kernel_that_takes_too_much_is_told() -> None:
    code = (
        "import sys, engine.kernels.compile as c; c.MOST_SHARED_BYTES = -1; "
        "sys.argv[1:] = ['--only', 'norm of 2048, bf16']; sys.exit(c.main())"
    )
    its = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=its, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "TOO MUCH" in done.stdout
