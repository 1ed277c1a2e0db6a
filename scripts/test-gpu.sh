#!/bin/bash
# All that can be asked of a GPU in one command, without network and without Node, in less than 9 minutes:
#
#   scripts/test-gpu.sh [--build FOLDER] [--dry-run] [OUTPUT]
#
# builds (or takes from FOLDER what a CUDA build with KANDINSKY_TESTS=1 put there), tests our kernels on the card, then every
# network against the recorded calls with our kernels and with ggml's operations, then measures networks, kernels and,
# where python3 has torch and diffusers, those. Logs go to OUTPUT (default build/gpu/report); the last lines are a table.
# Exits 1 if anything of ours failed, 2 if there is no GPU. KANDINSKY_GGML names ggml's source where it is not in native/ggml.
#
# --dry-run does the same with a build for this machine: the GPU is emulated, what is measured is small and on the CPU.
set -u
cd "$(dirname "$0")/.."
build= dry= output=
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift ;;
    --dry-run) dry=1 ;;
    -*) echo "usage: $0 [--build FOLDER] [--dry-run] [OUTPUT]" >&2; exit 64 ;;
    *) output=$1 ;;
  esac
  shift
done
output=${output:-build/gpu/report}
rm -rf "$output"
mkdir -p "$output"
seconds_in_all=${KANDINSKY_GPU_SECONDS:-530}
started=$SECONDS
failures=0
: > "$output/steps"
: > "$output/results"

if [ -z "$dry" ]; then
  if ! nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader > "$output/card" 2>/dev/null; then
    echo "no GPU here (nvidia-smi lists none); --dry-run tries the rest" >&2
    exit 2
  fi
  cat "$output/card"
fi

# step NAME LIMIT COMMAND...: at most LIMIT seconds, and no longer than there are left.
step() {
  local name=$1 limit=$2 left=$((seconds_in_all - SECONDS + started)) begin=$SECONDS status
  shift 2
  [ "$limit" -gt "$left" ] && limit=$left
  if [ "$limit" -le 0 ]; then
    echo "$name|no time left|0" >> "$output/steps"
    return 1
  fi
  timeout "$limit" "$@" > "$output/$name.log" 2>&1
  status=$?
  case $status in
    0) result=ok ;;
    124) result="stopped after $limit s" ;;
    *) result="FAILED ($status)" ;;
  esac
  echo "$name|$result|$((SECONDS - begin))" >> "$output/steps"
  echo "$name: $result, $((SECONDS - begin)) s"
  [ $status -eq 0 ] || tail -5 "$output/$name.log"
  return $status
}
# A step that must pass.
check() { step "$@" || failures=$((failures + 1)); }

compile() {
  local settings=(-DCMAKE_BUILD_TYPE=Release -DKANDINSKY_TESTS=ON "-DKANDINSKY_OUTPUT=$PWD/build/gpu/$1" "-DKANDINSKY_GGML_DIR=${KANDINSKY_GGML:-$PWD/native/ggml}")
  if [ "$1" = cuda ]; then
    settings+=(-DKANDINSKY_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$(head -1 "$output/card" | awk -F', ' '{ sub(/\./, "", $2); print $2 }')")
    ldconfig -p | grep -q libcuda.so || settings+=(-DGGML_CUDA_NO_VMM=ON)
  fi
  cmake -S . -B "build/gpu/tree-$1" "${settings[@]}" && cmake --build "build/gpu/tree-$1" --parallel "$(nproc)"
}

kind=${dry:+emulated}
kind=${kind:-cuda}
if [ -z "$build" ]; then
  export -f compile
  export output
  check build 300 bash -c "compile $kind"
  [ $failures -eq 0 ] || exit 1
  build=build/gpu/$kind
fi

# ---- is it right?
tests=("$build/kandinsky-native-test" --fixtures test/fixtures --device cuda --filter)
[ -n "$dry" ] || check kernels 120 "$build/kandinsky-cuda-test"
KANDINSKY_CUDA_KERNELS=always check networks-ours 150 "${tests[@]}" matches_
KANDINSKY_CUDA_KERNELS=on check device 60 "${tests[@]}" cuda_
# On a processor ggml's operations are slow, and nothing about them is new.
[ -n "$dry" ] || KANDINSKY_CUDA_KERNELS=off check networks-ggml 60 "${tests[@]}" matches_

# ---- how fast is it?
if [ -n "$dry" ]; then
  device=cpu runs=0.01 sizes="unet-64 movq-64" types=q8_0
else
  device=cuda runs=2 sizes="unet-768 unet-512 unet-1024 prior movq-512 movq-768" types="q8_0 f16 q4_K"
fi
# measure NAME LIMIT TYPE CASE...
measure() {
  local name=$1 limit=$2 type=$3 cases=()
  shift 3
  for one in "$@"; do cases+=(--case "$one"); done
  check "$name" "$limit" "$build/kandinsky-network-bench" --configs native/bench/configs.json --device $device --type "$type" --seconds $runs "${cases[@]}"
  sed -n "s/^{\"case\":\"\([^\"]*\)\".*\"type\":\"\([^\"]*\)\",\"ms_per_step\":\([0-9.]*\),\"tflops\":\([0-9.]*\)\(.*\)}/\1|$name|\3|\4|\5/p" "$output/$name.log" >> "$output/results"
}
if [ -z "$dry" ]; then
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 200 > "$output/memory" &
  memory=$!
fi
measure matrix 30 f16 matrix
for type in $types; do measure "$type" 80 "$type" $sizes; done
KANDINSKY_CUDA_KERNELS=off measure ggml-operations 40 q8_0 ${sizes%% *}
[ -n "$dry" ] || kill "$memory"
python=${PYTHON:-python3}
if [ -z "$dry" ] && "$python" -c 'import torch, diffusers; assert torch.cuda.is_available()' 2>/dev/null; then
  for one in unet-768 unet-512; do
    steps=$(printf 'step\\n%.0s' 1 2 3 4 5 6 7 8 9 10 11 12)
    step "torch-$one" 120 bash -c "printf '$steps' | KANDINSKY_TORCH_DEVICE=cuda KANDINSKY_TORCH_COMPILE=1 $python bench/torch_worker.py $one 0"
    sed -n 's/^{"ms": \([0-9.]*\)}/\1/p' "$output/torch-$one.log" | sort -g | head -1 | sed "s/.*/$one|torch fp16 compiled|&|0|/" >> "$output/results"
  done
fi
[ -n "$dry" ] || check kernel-speed 60 "$build/kandinsky-cuda-bench" --threads 1

# ---- the table
echo
[ -s "$output/card" ] && cat "$output/card"
awk -F'|' '{ printf "%-18s %-24s %4d s\n", $1, $2, $3 }' "$output/steps"
echo
awk -F'|' '
  $1 == "matrix" { rate = $4; printf "matrix rate %s TFLOP/s (ggml, float16, 8192 wide)\n", $4; next }
  { line[++count] = $0; if ($2 ~ /^torch/) torch[$1] = $3 }
  END {
    printf "%-12s %-22s %10s %9s %8s %8s\n", "case", "weights", "ms", "TFLOP/s", "of rate", "of torch"
    for (i = 1; i <= count; ++i) {
      split(line[i], f, "|")
      counted = f[4] > 0
      share = (counted && rate > 0) ? sprintf("%.0f %%", 100 * f[4] / rate) : "-"
      ratio = (torch[f[1]] > 0) ? sprintf("%.2f", torch[f[1]] / f[3]) : "-"
      printf "%-12s %-22s %10.2f %9s %8s %8s\n", f[1], f[2], f[3], (counted ? f[4] : "-"), share, ratio
    }
  }' "$output/results" | tee "$output/table"
[ -s "$output/memory" ] && echo "peak memory of the card: $(sort -n "$output/memory" | tail -1) MB"
[ $failures -eq 0 ] || echo "$failures of the checks failed" >&2
exit $((failures > 0))
