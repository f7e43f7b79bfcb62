#!/bin/sh
# Measures what docs/report.md reports: measure.sh TERSE OUT GROUP... with the groups
#   small    the built-in model on the processor; some twelve minutes on 16 cores, an hour on two
#   1b       Llama-3.2-1B's shape in random weights on the processor; five minutes on 16
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
  ours=hq4,hq3,hq2+,hq2b,hq2
  all=$ours,int8,int4,kivi,kvquant,cachegen,hack:v2,hack
  some=hq3,hq2b,hq2,int4,kivi,cachegen,hack
  # What crosses decides: prompts of 8,000 tokens, links from fast to slow.
  for r in 10 1 3 19; do
    serve long-r$r --device cpu --input 8000 --requests 2 --rounds 2 --link-ratio $r --kv $all
  done
  # The paper's workloads, all of their requests split; and routed as terse serve does.
  serve classify --device cpu --workload classify --requests 4 --rounds 2 --link-ratio 3 --kv $some
  serve complete --device cpu --workload complete --requests 4 --rounds 2 --link-ratio 3 --kv $some
  serve short-auto --device cpu --workload complete --requests 9 --link-ratio 10 --kv hq3,hq2 --route auto
  # The paper's switches.
  serve ablation --device cpu --input 2048 --requests 2 --rounds 2 --link-ratio 10 --kv hack,hack+se=off,hack+rqe=off,hack+partition=32,hack+partition=128,hack:v2
  # Real traces: one a quarter as long, with the prefixes that its requests share, and one with its arrivals.
  serve mooncake --device cpu --trace workload/testdata/mooncake.jsonl --length-scale 0.25 --max-output 64 --requests 6 --concurrency 2 --link-ratio 10 --kv hq3,hq2,int4
  serve azure --device cpu --trace workload/testdata/azure.csv --requests 10 --rounds 1 --link-ratio 3 --kv hq3,hq2,int4
  serve summarise --device cpu --workload summarise --requests 2 --rounds 2 --link-ratio 3 --kv $some
  # Length decides.
  for n in 512 1024 2048 4096; do
    serve length-$n --device cpu --input $n --requests 2 --rounds 2 --link-ratio 10 --kv hq4,hq3,hq2,int4
  done
  serve retrieve --device cpu --workload retrieve --requests 2 --rounds 2 --link-ratio 3 --kv $some
  # No link at all: what coding and attending cost.
  serve long-fast --device cpu --input 8000 --requests 2 --rounds 2 --kv $all
}

big() {
  # Length decides here too.
  for n in 512 1024; do
    serve 1b-length-$n --device cpu --model "$MODELS/1b-q8_0.gguf" --ctx 4096 --input $n --output 32 --requests 1 --rounds 1 --link-ratio 10 --kv hq3,hq2,int4
  done
  serve 1b-r10 --device cpu --model "$MODELS/1b-q8_0.gguf" --ctx 4096 --input 2048 --output 32 --requests 2 --rounds 2 --link-ratio 10 --kv hq4,hq3,hq2,int4,kivi
}

gpu() {
  ours=hq4,hq3,hq2
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
