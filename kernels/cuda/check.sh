#!/usr/bin/env bash
# Everything that needs a GPU, in one go: builds the kernels, checks them against
# their references, runs engines on them and compute-sanitizer, and times them beside
# PyTorch's attention. Needs nvcc, PyTorch and Go; without Go, test binaries built
# elsewhere (with the image that is to be checked, which they embed):
#   for p in kernels/cuda model/device engine; do CGO_ENABLED=0 go test -c -o $p/ ./$p; done
# Steps can be named: check.sh [build] [test] [engine] [sanitize] [table] [torch]
set -uo pipefail
cd "$(dirname "$0")/../.."
steps=${*:-build test engine sanitize table torch}
failed=0
fail() { echo "FAILED: $*"; failed=1; }
want() { case " $steps " in *" $1 "*) printf '\n== %s (after %d s)\n' "$1" $SECONDS ;; *) return 1 ;; esac; }
# tests PACKAGE [-with PROGRAM ARGS --] FLAGS... runs a package's tests in its folder.
tests() {
  local p=$1 with=()
  shift
  if [ "$1" = -with ]; then
    shift
    while [ "$1" != -- ]; do with+=("$1") && shift; done
    shift
  fi
  if command -v go >/dev/null; then CGO_ENABLED=0 go test -c -o "$p/" "./$p" || return; fi
  (cd "$p" && ${with[@]+"${with[@]}"} "./${p##*/}.test" "$@" -gpu)
}

if want build; then kernels/cuda/build.sh -v || exit; fi
if want test; then tests kernels/cuda -test.timeout 600s -image image || fail test; fi
if want engine; then
  tests model/device -test.timeout 600s || fail model/device
  tests engine -test.timeout 600s -test.run Device || fail engine
fi
if want sanitize; then
  tmp=$(mktemp -d) && log=$tmp/log
  trap 'rm -rf "$tmp"' EXIT
  sanitize() { # 'TOOL OPTIONS...' PACKAGE FLAGS...
    tests "$2" -with timeout 600 compute-sanitizer --tool $1 --print-limit 1000 --error-exitcode 9 -- -test.short "${@:3}" >"$log" 2>&1
    local rc=$?
    grep -vE '^(PASS|=+ *$)' "$log" | tail -n 12
    [ $rc = 0 ] && return
    echo "what was found in which kernels, and how often:"
    awk -v FS=' access at ' '
      function kernel(at) { sub(/[+ ].*/, "", at); return at }
      /Race reported between/ { sub(/.*between /, "", $1); first = $1 " " kernel($2); next }
      / and .* access at / { sub(/.* and /, "", $1); print "race of " first " and " $1 " " kernel($2); next }
      /^=+ +(Invalid|Misaligned|Uninitialized|Program hit)/ { sub(/^=+ +/, ""); what = $0; next }
      what != "" && /^=+ +at / { sub(/^=+ +at /, ""); print what " in " kernel($0); what = ""; next }
      what != "" { print what; what = "" }
    ' "$log" | sort | uniq -c | sort -k1nr -k2
    fail "$@"
  }
  for tool in memcheck 'racecheck --kernel-name-exclude regex=^wide_'; do
    sanitize "$tool" kernels/cuda -image image -test.run 'Decode$|Encode$|Layer|Prefill|Hack|Few|Turn|Enter|Each|Weigh|Choose'
  done
  # Of the kernels left out, but built so that racecheck can follow them (docs/cuda.md).
  sed -n '/^#ifdef TERSE_HOPPER/,/^#endif/p' kernels/cuda/src/kernels.cu >"$tmp/wide.cu"
  nvcc -std=c++17 -O3 --split-compile=0 -lineinfo -Ikernels/cuda/src -DTERSE_HOPPER -DTERSE_EACH_ARRIVES -gencode=arch=compute_90a,code=sm_90a -cubin -o "$tmp/kernels.cubin" "$tmp/wide.cu" && gzip "$tmp/kernels.cubin" || fail wide.cu
  sanitize racecheck kernels/cuda -image "$tmp" -test.run PrefillWide
  sanitize memcheck model/device -test.run 'Ahead|Bring'
fi
if want table; then tests kernels/cuda -test.timeout 1800s -image image -test.run Table -table || fail table; fi
if want torch; then python3 kernels/cuda/check.py || fail torch; fi
printf '\n== %s after %d s\n' "$([ $failed = 0 ] && echo passed || echo FAILED)" $SECONDS
exit $failed
