#!/bin/sh
# Measures what docs/report.md reports: measure.sh TERSE [OUT]. Takes some ten minutes
# on 16 cores; nothing else should run.
set -eu
terse=$1 out=${2:-docs/results}
serve() { # NAME FLAGS...
  name=$1
  shift
  "$terse" bench serve --log-level error --json "$out/$name.json" "$@"
  echo
}
all=hq4,hq3,hq2+,hq2,int8,int4,kivi,hack:v2,hack
# What crosses decides: prompts of 8,000 tokens, links from fast to slow.
serve long-r1 --input 8000 --requests 3 --link-ratio 1 --kv $all
serve long-r3 --input 8000 --requests 3 --link-ratio 3 --kv $all
serve long-r10 --input 8000 --requests 3 --link-ratio 10 --kv $all
serve long-r30 --input 8000 --requests 2 --rounds 2 --link-ratio 30 --kv hq3,hq2
# No link at all: what coding and attending cost.
serve long-fast --input 8000 --requests 6 --kv $all
# Length decides.
for n in 512 1024 2048 4096; do
  serve length-$n --input $n --requests 6 --link-ratio 10 --kv hq4,hq3,hq2,int4
done
# Short prompts, routed as terse serve does.
serve short-auto --workload complete --requests 9 --link-ratio 10 --kv hq3,hq2 --route auto
# The paper's switches.
serve ablation --input 2048 --requests 6 --link-ratio 10 --kv hack,hack+se=off,hack+rqe=off,hack+partition=32,hack+partition=128,hack:v2
# A real trace, a quarter as long, with the prefixes that it shares.
serve mooncake --trace workload/testdata/mooncake.jsonl --length-scale 0.25 --max-output 64 --requests 9 --concurrency 2 --link-ratio 10 --kv hq3,hq2,int4
