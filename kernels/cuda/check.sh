#!/usr/bin/env bash
# Everything that needs a GPU, in one go: builds the kernels, checks them against
# their references, runs compute-sanitizer, and times them beside PyTorch's
# attention. Needs nvcc, and Go or a test binary of this package built elsewhere
# (CGO_ENABLED=0 go test -c -o cuda.test ./kernels/cuda). Steps can be named:
#   check.sh [build] [test] [engine] [sanitize] [table] [torch]
set -uo pipefail
cd "$(dirname "$0")"
steps=${*:-build test engine sanitize table torch}
bin=./cuda.test
[ -x "$bin" ] || CGO_ENABLED=0 go test -c -o "$bin" . || exit
want() { case " $steps " in *" $1 "*) printf '\n== %s\n' "$1" ;; *) return 1 ;; esac; }
failed=0
if want build; then ./build.sh -v || exit; fi
if want test; then "$bin" -test.timeout 100s -gpu -image image || failed=1; fi
if want engine; then
  for p in model/device engine; do (cd ../.. && CGO_ENABLED=0 go test -count=1 -run "Device|Golden|Step|Draw|Ahead|Bring" ./$p -args -gpu) || failed=1; done
fi
if want sanitize; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool $tool --error-exitcode 9 "$bin" -test.timeout 100s -test.short -test.run 'Decode$|Encode$|Layer|Prefill|Hack|Few|Turn|Enter|Each' -gpu -image image 2>&1 | grep -vE '^(PASS|=+ *$)' | tail -n 12
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
  done
fi
if want table; then "$bin" -test.run 'Table' -gpu -table -image image || failed=1; fi
if want torch; then python3 check.py || failed=1; fi
exit $failed
