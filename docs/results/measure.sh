#!/bin/sh
# Measures what docs/report.md reports: measure.sh TERSE OUT GROUP... with the groups
#   small    the built-in model on the processor; some twelve minutes on 16 cores
#   1b       Llama-3.2-1B's shape in random weights on the processor; eight minutes
#   gpu      the built-in model and both of Llama's shapes on an NVIDIA GPU; three minutes
# Nothing else should run. The shapes are read from $MODELS, where make results
# writes them: 1b-q8_0.gguf, 1b-bf16.gguf and 8b-bf16.gguf.
set -eu
terse=$1 out=$2
shift 2
serve() { # NAME FLAGS...
  name=$1
  shift
  "$terse" bench serve --log-level error --json "$out/$name.json" "$@"
  echo
}

small() {
  ours=hq4,hq3,hq2+,hq2
  all=$ours,int8,int4,kivi,kvquant,cachegen,hack:v2,hack
  # What crosses decides: prompts of 8,000 tokens, links from fast to slow.
  serve long-r1 --device cpu --input 8000 --requests 3 --link-ratio 1 --kv $all
  serve long-r3 --device cpu --input 8000 --requests 3 --link-ratio 3 --kv $all
  serve long-r10 --device cpu --input 8000 --requests 3 --link-ratio 10 --kv $all
  serve long-r30 --device cpu --input 8000 --requests 2 --rounds 2 --link-ratio 30 --kv hq3,hq2
  # No link at all: what coding and attending cost.
  serve long-fast --device cpu --input 8000 --requests 6 --kv $all
  # Length decides.
  for n in 512 1024 2048 4096; do
    serve length-$n --device cpu --input $n --requests 6 --link-ratio 10 --kv hq4,hq3,hq2,int4
  done
  # The paper's four workloads, all of their requests split, and routed as terse serve does.
  for w in classify summarise retrieve complete; do
    serve $w-r3 --device cpu --workload $w --requests 4 --rounds 2 --link-ratio 3 --kv $all
  done
  serve short-auto --device cpu --workload complete --requests 9 --link-ratio 10 --kv hq3,hq2 --route auto
  # The paper's switches.
  serve ablation --device cpu --input 2048 --requests 6 --link-ratio 10 --kv hack,hack+se=off,hack+rqe=off,hack+partition=32,hack+partition=128,hack:v2
  # A real trace, a quarter as long, with the prefixes that it shares.
  serve mooncake --device cpu --trace workload/testdata/mooncake.jsonl --length-scale 0.25 --max-output 64 --requests 9 --concurrency 2 --link-ratio 10 --kv hq3,hq2,int4
  # Another, with its arrivals.
  serve azure --device cpu --trace workload/testdata/azure.csv --requests 12 --rounds 2 --link-ratio 3 --kv hq3,hq2,int4
}

big() {
  serve 1b-r10 --device cpu --model "$MODELS/1b-q8_0.gguf" --ctx 8192 --input 4096 --output 32 --requests 2 --rounds 2 --link-ratio 10 --kv hq4,hq3,hq2,int4,kivi
}

gpu() {
  ours=hq4,hq3,hq2+,hq2
  serve gpu-small-r10 --device cuda --input 8000 --requests 6 --link-ratio 10 --kv $ours
  serve gpu-1b-10g --device cuda --model "$MODELS/1b-bf16.gguf" --ctx 32768 --input 16000 --requests 6 --link 10 --kv $ours
  serve gpu-8b-10g --device cuda --model "$MODELS/8b-bf16.gguf" --ctx 32768 --input 16000 --requests 3 --link 10 --kv $ours
  serve gpu-8b-25g --device cuda --model "$MODELS/8b-bf16.gguf" --ctx 32768 --input 16000 --requests 3 --link 25 --kv $ours
}

for group; do
  case $group in
  small | gpu) $group ;;
  1b) big ;;
  *) echo "measure.sh: there is no group $group" >&2; exit 2 ;;
  esac
done
