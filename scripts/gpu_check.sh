#!/usr/bin/env bash
# The CUDA search on a real GPU: correctness, compute-sanitizer (memory, races, barriers, uninitialised
# reads), the ops against the CPU bit by bit, times. Needs nvcc, a GPU of compute capability 8.0 or newer and
# the package's Python (PYTHON=... for another).
#   scripts/gpu_check.sh [folder for the results]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-outputs/gpu_check}
mkdir -p "$out"

command -v nvcc >/dev/null || { echo "gpu_check: expected nvcc; got none. Install the CUDA toolkit." >&2; exit 2; }
nvidia-smi -L || { echo "gpu_check: expected a GPU; nvidia-smi finds none." >&2; exit 2; }

nvcc -std=c++17 -O3 -lineinfo -arch=native tests/kernels/gpu_check.cu -o "$out/gpu_check"

echo "== correctness, inside CUDA graphs"
"$out/gpu_check" correct | tee "$out/correct.md"

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    echo "== compute-sanitizer $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 3 "$out/gpu_check" correct >"$out/$tool.txt" 2>&1 \
      || { tail -n 40 "$out/$tool.txt"; exit 3; }
    tail -n 1 "$out/$tool.txt"
  done
else
  echo "gpu_check: no compute-sanitizer on PATH: memory and races were NOT checked" | tee "$out/sanitizer_missing.txt"
fi

echo "== times"
{ nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader; "$out/gpu_check" bench; } | tee "$out/bench.md"

echo "== the ops: against the CPU, on streams, in CUDA graphs; the search against torch"
python=${PYTHON:-python}
TOKENIZERS_VQ_REQUIRE=cpu,cuda "$python" kernels/build.py
PYTHONPATH=$PWD "$python" -m tokenizers_vq.ops
PYTHONPATH=$PWD "$python" scripts/gpu_check.py | tee "$out/op.md"

echo "== the same by Triton"
TOKENIZERS_VQ_CUDA=triton PYTHONPATH=$PWD "$python" scripts/gpu_check.py --rows 100000 | tee "$out/op_triton.md"
