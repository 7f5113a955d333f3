#!/usr/bin/env bash
# From a bare machine with a card to a verdict in under eight minutes: builds, checks every op, races, fits whole
# models, runs the tests that need a device, and looks for bad memory accesses. Needs torch with CUDA, nvcc and g++;
# nothing is downloaded and no setting of the card is touched.
#
#   bench/gpu_check.sh [FOLDER]     results and logs go to FOLDER (bench/results): <card>.json, *.log
#   bench/gpu_check.sh --dry-run    the script itself, on a processor
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
python=${PYTHON:-python3}
dry=()
if [ "${1:-}" = --dry-run ]; then
  dry=(--dry-run)
  shift
fi
results=${1:-bench/results}
mkdir -p "$results" || exit 2
results=$(cd "$results" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

# step NAME SECONDS COMMAND...: runs within its time, keeps the log, remembers a failure.
step() {
  local name=$1 limit=$2 status
  shift 2
  say "$name"
  timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$results/$name.log"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || failed+=("$name: status $status")
  return "$status"
}

export MAX_JOBS=${MAX_JOBS:-$(nproc)} PYTHONUNBUFFERED=1 CFR_FAST_CACHE="${CFR_FAST_CACHE:-$work/cache}" PYTHONDONTWRITEBYTECODE=1
if [ ${#dry[@]} -eq 0 ]; then
  # Only this card's architecture: half the compile time. 9.0a has Hopper's own instructions.
  if [ -z "${TORCH_CUDA_ARCH_LIST:-}" ]; then
    capability=$(nvidia-smi -i 0 --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) || {
      echo "gpu_check: no card found by nvidia-smi (--dry-run tries the script out without one)" >&2
      exit 2
    }
    case $capability in 9.0) capability=9.0a ;; esac
    export TORCH_CUDA_ARCH_LIST=$capability
  fi
  export CFR_FAST_BUILD=1 CFR_FAST_CUDA=1
  step build 240 "$python" -m pip install --no-build-isolation --no-deps --quiet --target "$work/site" "$root"
  if [ -d "$work/site/cfr_fast" ]; then
    export PYTHONPATH=$work/site
  else
    export PYTHONPATH=$root # the library is then compiled at first use
  fi
else
  export PYTHONPATH=${PYTHONPATH:-$root}
fi

step check 300 "$python" bench/gpu_check.py "${dry[@]}" --results "$results" --seconds $((270 - SECONDS > 60 ? 270 - SECONDS : 60))
step whole 120 "$python" bench/gpu_check.py --whole "${dry[@]}" --results "$results"

if [ ${#dry[@]} -eq 0 ]; then
  if "$python" -c 'import pytest, hypothesis' 2>/dev/null; then
    # The checkout must not come before the installed package: PYTHONSAFEPATH keeps this folder off the path.
    mapfile -t files < <(grep -lE 'no CUDA device here|NO_DEVICE' python_tests/test_*.py)
    step tests 90 env PYTHONSAFEPATH=1 "$python" -m pytest -q --device-only -p no:cacheprovider "${files[@]}"
  else
    say "tests: left out, no pytest and hypothesis here; the checks above stand for them"
  fi
  case $TORCH_CUDA_ARCH_LIST in
    # The portable tiles, which no other step runs on such a card, and both in a race.
    *9.0a*) step hopper 60 "$python" bench/gpu_check.py --hopper --results "$results" --seconds 40 ;;
  esac
  if command -v compute-sanitizer >/dev/null; then
    step memcheck $((470 - SECONDS > 30 ? 470 - SECONDS : 30)) compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$python" bench/gpu_check.py --few --seed 1
    if grep -q 'Device not supported' "$results/memcheck.log"; then
      unset 'failed[-1]'
      say "memcheck: left out, compute-sanitizer does not support this machine's device"
    fi
  else
    say "memcheck: left out, no compute-sanitizer here"
  fi
fi

say verdict
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED %s\n' "${failed[@]}"
  exit 1
fi
echo "all right; $results"
