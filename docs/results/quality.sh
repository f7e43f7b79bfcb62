#!/bin/sh
# Measures what docs/quality.md reports: quality.sh TERSE OUT GROUP... with the groups
#   texts    divergences over six windows, decoding, greedy agreement; three minutes on 16 cores
#   tasks    retrieval, recall, quotes, recall after a long generation, 192 cases each; six minutes
#   grid     retrieval and recall by length and depth; four minutes
#   files    the task files of eval/tasks; two minutes
#   stress   planted outliers; two minutes
# A group is many single-threaded parts, as many at once as there are cores. Their
# reports are left in OUT/parts and joined in OUT.
set -eu
terse=$1 out=$2
shift 2
mkdir -p "$out/parts"

# One format after another within a set; every set has f16 beside.
sets="hq4,hq3,hq2+ hq2b,hq2b+recent=256 hq2b+important=6,hq2++important=10,hq2+basis=balanced+important=10,hq2+important=10,hq2 int8,int4,kivi,hack:v2 cachegen,kvquant,kvquant+bits=4"
all=$(echo $sets | tr ' ' ',')

job() { # NAME FLAGS...: a part of the report NAME.json
  n=$((n + 1))
  name=$1.$(printf %03d $n)
  shift
  echo "$terse eval --threads 1 --json $out/parts/$name.json $* >$out/parts/$name.log 2>&1 || echo $name failed" >>"$out/jobs"
}

share() { # NAME PARTS FLAGS...: the cases in PARTS
  report=$1 parts=$2
  shift 2
  i=0
  while [ $i -lt $parts ]; do
    i=$((i + 1))
    job $report --texts none --part $i/$parts "$@"
  done
}

texts() {
  for text in books children go; do
    for set in $sets hack; do
      job texts --texts $text --windows 6 --tasks none --kv $set
      job decoded --style decode --texts $text --windows 1 --window 1024 --tasks none --kv $set
    done
    job important --texts $text --windows 2 --from 2048 --tasks none --kv hq3,hq2b+important=6,hq2b,hq2+important=10,hq2
  done
  for set in $sets; do
    job greedy --windows 20 --window 640 --agree 64 --tasks none --kv $set
  done
}

tasks() {
  share tasks 12 --tasks retrieval --cases 192 --kv $all
  share tasks 8 --tasks recall@4096 --cases 192 --kv $all
  share tasks 8 --tasks quote@512 --cases 192 --kv $all
  for set in $sets; do
    share tasks 3 --tasks late --cases 192 --kv $set # a part decodes eight texts at once
  done
  share tasks 8 --tasks recall@3072 --cases 192 --kv $all
}

grid() {
  some=hq3,hq2+,hq2,hack:v2
  share grid 16 --tasks retrieval@8000 --cases 192 --kv $some
  share grid 8 --tasks retrieval@4096 --cases 192 --kv $some
  share grid 4 --tasks retrieval@2048,recall@4096,recall@3072 --cases 192 --kv $some
  share grid 4 --tasks recall@1024,recall@2048,late@2048 --cases 192 --kv $some
}

files() {
  for set in $sets; do
    share files 4 --tasks none --task-file eval/tasks/reviews.jsonl.gz --task-file eval/tasks/summaries.jsonl.gz --task-file eval/tasks/completion.jsonl.gz --task-file eval/tasks/passages.jsonl.gz --kv $set
  done
}

stress() {
  for kind in outliers bias; do
    job $kind --stress $kind --windows 1 --window 1024 --tasks none --kv hq4,hq3,hq2+,hq2b,hq2,hq2+rotate=off,hq2+mean=off,hq2+clip=off,hq2+rotate=off+mean=off,hq2+basis=balanced,int8,int4,kivi,cachegen,kvquant,hack:v2
  done
}

for group; do
  case $group in
  texts | tasks | grid | files | stress) ;;
  *) echo "quality.sh: there is no group $group" >&2; exit 2 ;;
  esac
  n=0
  : >"$out/jobs"
  $group
  tr '\n' '\0' <"$out/jobs" | xargs -0 -P "$(nproc)" -I{} sh -c '{}'
  for name in $(cut -d' ' -f6 "$out/jobs" | sed 's|.*/||; s|\..*||' | sort -u); do
    "$terse" eval --json "$out/$name.json" --merge "$(ls "$out/parts/$name".*.json | paste -sd, -)"
    echo
  done
done
