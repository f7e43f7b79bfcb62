#!/usr/bin/env bash
# Compiles the kernels with CUDA's nvcc (12.4 or later; no GPU needed):
#   image/kernels.ptx.gz    for compute_80, compiled by the driver of any later GPU
#   image/kernels.cubin.gz  for sm_90a
# Both carry the hash of the sources and of this script; a test compares it.
# With -v the compiler tells the kernels' registers, shared memory and spills.
set -euo pipefail
cd "$(dirname "$0")"
export LC_ALL=C
hash=$(cat build.sh src/* | sha256sum | cut -d' ' -f1)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=c++17 -O3 --split-compile=0 -Isrc "-DTERSE_SOURCES=\"$hash\"")
nvcc "${flags[@]}" -gencode=arch=compute_80,code=compute_80 -ptx -o "$out/kernels.ptx" src/kernels.cu &
nvcc "${flags[@]}" -DTERSE_HOPPER -gencode=arch=compute_90a,code=sm_90a -cubin ${1:+-Xptxas=$1} -o "$out/kernels.cubin" src/kernels.cu 2>"$out/log" || { cat "$out/log"; exit 1; }
wait $!
# Older drivers read it too: nothing in it is newer than PTX 7.8 (CUDA 11.8) but
# hints that some bytes of a load are not used.
sed -i "/used_bytes_mask/d; s/^\.version .*/.version 7.8/; 1i // terse sources $hash" "$out/kernels.ptx"
ptxas -arch=sm_80 -o /dev/null "$out/kernels.ptx"
mkdir -p image
for f in kernels.ptx kernels.cubin; do gzip -9nc "$out/$f" >"image/$f.gz"; done
awk '/Compiling entry/{n=$0; gsub(/.*function .|. for.*/,"",n)} /spill/{s=$0; gsub(/^ +/,"",s)} /Used/{u=$0; gsub(/.*: /,"",u); print n": "u"; "s}' "$out/log"
ls -l image
