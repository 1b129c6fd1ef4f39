"""Compiles every kernel with every tile for an H100, on a machine without one, and lists what each
takes: registers, stack (what does not fit in registers, in bytes a thread) and shared memory.

    python -m engine.kernels.compile [--only PART] [--workers N]

Exits with 1 if a kernel takes more stack or shared memory than an H100 gives without loss. The
kernels are launched by their own callers on tensors without memory ("meta"), and each launch is
turned into a compilation.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from engine.kernels.supported import is_interpreted

TARGET = GPUTarget("cuda", 90, 32)
MOST_SHARED_BYTES = 227 * 1024
MOST_STACK_BYTES = 0
MOST_STACK_BYTES_OF_FLOAT32 = 2560
"""Attention in float32 keeps queries on the stack. It is right, for comparison with a CPU, and
slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """One compiled kernel."""

    case: str
    kernel: str
    num_warps: int
    registers: int
    """Of a thread."""
    stack_bytes: int
    """Of a thread."""
    shared_bytes: int
    """Of a block."""

    @property
    def fits(self) -> bool:
        is_wide = "float32" in self.case
        most_stack = MOST_STACK_BYTES_OF_FLOAT32 if is_wide else MOST_STACK_BYTES
        return self.stack_bytes <= most_stack and self.shared_bytes <= MOST_SHARED_BYTES


class _NoDevice:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(case: str) -> Iterator[list[Compiled]]:
    """Inside, launches only compile, for an H100, and are added to the list. Triton's cache on disk
    then has them for an H100 too. This process can launch nothing afterwards."""
    found: list[Compiled] = []
    launch = JITFunction.run

    def compile_only(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launch(function, *args, grid=grid, warmup=True, **kwargs)
        found.append(_measured(case, function.__name__, kernel))
        return kernel

    driver.set_active(_NoDevice())
    JITFunction.run = compile_only
    try:
        yield found
    finally:
        JITFunction.run = launch


def _measured(case: str, name: str, kernel: Any) -> Compiled:
    """Reads registers and stack from the binary by cuobjdump, which comes with Triton."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK):(\d+)", text)}
    return Compiled(
        case=case,
        kernel=name,
        num_warps=kernel.metadata.num_warps,
        registers=usage["REG"],
        stack_bytes=usage["STACK"],
        shared_bytes=kernel.metadata.shared,
    )


def compile_case(case: tuple[str, Callable[[], object]]) -> list[Compiled]:
    """Compiles what one case launches."""
    name, launch = case
    with compiling(name) as found:
        launch()
    return found


def _compile_by_index(index: int) -> list[Compiled]:
    from engine.kernels.compile_cases import CASES

    return compile_case(CASES[index])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--workers", type=int, default=1, help="processes that compile")
    arguments = parser.parse_args()
    if is_interpreted():
        print("TRITON_INTERPRET=1: nothing would be compiled; unset it", file=sys.stderr)
        return 2
    from engine.kernels.compile_cases import CASES  # imports the kernels

    chosen = [i for i, (name, _) in enumerate(CASES) if arguments.only in name]
    if not chosen:
        print(f"--only {arguments.only!r}: no case has this in its name", file=sys.stderr)
        return 2
    print(f"Triton {triton.__version__}, sm_{TARGET.arch}")
    print(f"{'case':38s} {'kernel':26s} warps registers stack shared KiB")
    found: list[Compiled] = []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for of_case in pool.map(_compile_by_index, chosen):
            for one in of_case:
                print(_row(one), flush=True)
            found += of_case
    num_bad = sum(not one.fits for one in found)
    print(
        f"{len(found)} kernels, {num_bad} take more than {MOST_STACK_BYTES} bytes of stack "
        f"(in float32 {MOST_STACK_BYTES_OF_FLOAT32}) or {MOST_SHARED_BYTES // 1024} KiB of shared "
        "memory"
    )
    return int(num_bad > 0)


def _row(one: Compiled) -> str:
    figures = f"{one.num_warps:5d} {one.registers:9d} {one.stack_bytes:5d}"
    shared = f"{one.shared_bytes / 1024:10.1f}"
    return f"{one.case:38s} {one.kernel:26s} {figures} {shared}{'' if one.fits else '  TOO MUCH'}"


if __name__ == "__main__":
    sys.exit(main())
