#!/usr/bin/env bash
# Installs the package as users find their machines: with and without compilers, in isolation.
# Each case has to give a package that imports, and one line per part that says what was built.
#   scripts/install_matrix.sh [python] [table]   a python with torch and setuptools; default: python
# Prints a table, to a file, too, if one is named. TOKENIZERS_VQ_CUDA_ARCHES=80 makes it faster.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${1:-python}")
table=${2:-/dev/null}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bare" "$work/broken" "$work/nonvcc"
for tool in env bash sh cat rm mkdir mktemp dirname uname ld as ar strip; do
  found=$(command -v "$tool" || true)
  if [ -n "$found" ]; then ln -s "$found" "$work/bare/$tool"; fi
done
cp -P "$work"/bare/* "$work/nonvcc/"
for tool in g++ gcc c++ cc; do ln -s "$(command -v "$tool")" "$work/nonvcc/$tool"; done
printf '#!/bin/sh\necho "g++: internal compiler error: always" >&2\nexit 1\n' > "$work/broken/g++"
chmod +x "$work/broken/g++"

# case NAME PATH EXPECTED-STATUS EXPECTED-WORDS PIP-OPTIONS... (with REQUIRE from the environment)
try() {
  local name=$1 path=$2 status=$3 words=$4 got=0 log=$work/log
  shift 4
  rm -rf "$work/source" "$work/out" && mkdir "$work/source" "$work/out"
  for item in pyproject.toml setup.py README.md LICENSE MANIFEST.in tokenizers_vq conf kernels; do
    cp -r "$root/$item" "$work/source/"
  done
  rm -f "$work"/source/tokenizers_vq/ops/*.so
  PATH=$path "$python" -m pip wheel -v --no-deps --disable-pip-version-check "$@" \
    -w "$work/out" "$work/source" > "$log" 2>&1 || got=1
  local line cuda
  line=$(grep -oE "CPU kernels (built|not built|required but).*" "$log" | tail -1 || true)
  cuda=$(grep -oE "CUDA kernels (built|not built|required but).*" "$log" | tail -1 || true)
  if [ "$got" != "$status" ] || ! grep -q "$words" <<< "$line"; then
    echo "FAILED  $name: status $got, said: $line"; tail -5 "$log"; exit 1
  fi
  local wheel="no wheel" active=""
  if [ "$got" = 0 ]; then
    wheel=$(basename "$work"/out/*.whl)
    "$python" -m zipfile -e "$work"/out/*.whl "$work/site"
    active=$(cd / && PYTHONPATH=$work/site "$python" -m tokenizers_vq.ops | awk 'NR == 1')
    rm -rf "$work/site"
  fi
  row "$name" "$line" "${cuda:--}" "${wheel#tokenizers_vq-*-}" "${active:--}"
}
row() { (IFS='|'; echo "| ${*//|//} |" | sed 's/|\([^ ]\)/| \1/g; s/\([^ ]\)|/\1 |/g') | tee -a "$table"; }

cat > "$table" << END
# Installing with and without compilers

\`scripts/install_matrix.sh python benchmarks/results/install_matrix.md\`: \`pip wheel\` of the sources,
then the wheel is run. The last row sets \`TOKENIZERS_VQ_REQUIRE=cpu\`: the build fails. In the others
it succeeds. $(g++ --version | head -1), $(nvcc --version 2> /dev/null | grep -o 'release [0-9.]*' | sed 's/release/nvcc/' || echo no nvcc),
$("$python" --version), torch $("$python" -c 'import torch; print(torch.__version__)'),
TOKENIZERS_VQ_CUDA_ARCHES=${TOKENIZERS_VQ_CUDA_ARCHES:-(not set)}.

END
row "install with" "what the build says" "and of CUDA" "wheel" "what then runs"
row --- --- --- --- ---
here=--no-build-isolation
try "g++ and nvcc, as found here" "$PATH" 0 "built (_C" $here
try "g++, no nvcc" "$work/nonvcc" 0 "built (_C" $here
try "no compiler" "$work/bare" 0 "not built (no compiler" $here
try "broken compiler" "$work/broken:$work/bare" 0 "internal compiler error" $here
try "build isolation" "$PATH" 0 "torch is not installed where this runs"
export TOKENIZERS_VQ_REQUIRE=cpu
try "no compiler, but required" "$work/bare" 1 "required but not built" $here
