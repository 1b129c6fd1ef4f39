#!/usr/bin/env bash
# Runs all that needs an NVIDIA GPU, in at most ten minutes: the tests marked `gpu`, then
# `python -m jobs.bench gpu`, quick and full.
#
#   jobs/bench/on_gpu.sh [FOLDER]
#
# FOLDER (default: $OUT, else jobs/bench/results) gets the logs and the reports, as they come. It
# needs python with torch, triton, numpy, PyYAML, transformers and pytest; $PYTHON says which. Exit
# code 1: a test or a check failed, or a step ran out of time.
set -uo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-${OUT:-jobs/bench/results}}
python=${PYTHON:-python3}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
mkdir -p "$folder"
failed=0

# step NAME SECONDS COMMAND...: its output goes to NAME.log, the end of it is shown.
step() {
    local name=$1 limit=$2 code=0
    shift 2
    timeout --signal=INT --kill-after=10 "$limit" "$@" >"$folder/$name.log" 2>&1 || code=$?
    tail -n 25 "$folder/$name.log" | cut -c 1-400
    echo "== $name: exit code $code, $SECONDS s since the start"
    if ((code)); then failed=1; fi
}

# Only the files with GPU tests are collected: others import what a machine for GPUs may lack. Those
# of the kernels have their mark from tests/kernels/places.py.
mapfile -t tests < <(grep -rlE --include='test_*.py' 'mark\.gpu|kernels\.places' tests | sort)
# Most of their time is compiling kernels: where pytest-xdist is installed, on all cores but four.
at_once=()
"$python" -c "import xdist" 2>/dev/null && at_once=(-n "$(($(nproc) > 5 ? $(nproc) - 4 : 1))")
step gpu_tests 150 "$python" -m pytest -q -m gpu -p no:cacheprovider "${at_once[@]}" "${tests[@]}"
step gpu_quick 110 "$python" -m jobs.bench gpu --quick --out "$folder"
step gpu_full 310 "$python" -m jobs.bench gpu --out "$folder"
exit "$failed"
