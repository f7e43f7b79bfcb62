// All kernels of package cuda, one translation unit (see ../build.sh).
#include "decode.cuh"
#include "encode.cuh"
#include "layer.cuh"
#include "prefill.cuh"

#ifndef TERSE_EMU
// What this was built from (build.sh).
extern "C" __device__ __constant__ const char terse_sources[] = TERSE_SOURCES;
#endif

#define DECODE(name, K, V, ASYM, NQ, WARPS, STAGES) \
  KERNEL(name, AttendParams, 32 * WARPS, 1) { decode<K, V, ASYM, NQ, WARPS, STAGES>(p); }

DECODE(decode_hq2_sym_4, kTwoBits, kTwoBits, false, 4, 16, 3)
DECODE(decode_hq2_sym_8, kTwoBits, kTwoBits, false, 8, 12, 3)
DECODE(decode_hq2_asym_4, kTwoBits, kTwoBits, true, 4, 16, 3)
DECODE(decode_hq2_asym_8, kTwoBits, kTwoBits, true, 8, 12, 3)
DECODE(decode_hq3_sym_4, kFourBits, kTwoBits, false, 4, 16, 2)
DECODE(decode_hq3_sym_8, kFourBits, kTwoBits, false, 8, 12, 2)
DECODE(decode_hq3_asym_4, kFourBits, kTwoBits, true, 4, 16, 2)
DECODE(decode_hq3_asym_8, kFourBits, kTwoBits, true, 8, 12, 2)
DECODE(decode_hq4_sym_4, kFourBits, kFourBits, false, 4, 12, 2)
DECODE(decode_hq4_sym_8, kFourBits, kFourBits, false, 8, 12, 2)
DECODE(decode_hq4_asym_4, kFourBits, kFourBits, true, 4, 12, 2)
DECODE(decode_hq4_asym_8, kFourBits, kFourBits, true, 8, 12, 2)
DECODE(decode_lead_sym_4, kLeading, kTwoBits, false, 4, 12, 3)
DECODE(decode_lead_sym_8, kLeading, kTwoBits, false, 8, 12, 3)
DECODE(decode_lead_asym_4, kLeading, kTwoBits, true, 4, 12, 3)
DECODE(decode_lead_asym_8, kLeading, kTwoBits, true, 8, 12, 3)

KERNEL(decode_f16_4, AttendParams, 512, 1) { decodeExact<4, 16>(p); }
KERNEL(decode_f16_8, AttendParams, 512, 1) { decodeExact<8, 16>(p); }

struct ReadParams {
  const Quad32* data;
  u32* out;
  u64 n;  // of 16 bytes
};

// How fast this GPU reads: the floor under everything else.
KERNEL(read_all, ReadParams, 512, 2) {
  u32 sum = 0;
  u64 step = (u64)gridDim.x * 512;
  u64 i = (u64)blockIdx.x * 512 + threadIdx.x;
  for (; i + 3 * step < p.n; i += 4 * step) {
    Quad32 v[4];
#pragma unroll
    for (int k = 0; k < 4; k++) v[k] = p.data[i + k * step];
#pragma unroll
    for (int k = 0; k < 4; k++) sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x12345678) *p.out = sum;
}

KERNEL(encode_64, EncodeParams, kEncodeThreads, 2) { Encode<64>::run(p); }
KERNEL(encode_128, EncodeParams, kEncodeThreads, 2) { Encode<128>::run(p); }

#define PREFILL(name, K, V, ASYM) \
  KERNEL(name, PrefillParams, 128, 3) { Prefill<K, V, ASYM>::run(p); }

PREFILL(prefill_hq2_sym, kTwoBits, kTwoBits, false)
PREFILL(prefill_hq2_asym, kTwoBits, kTwoBits, true)
PREFILL(prefill_hq3_sym, kFourBits, kTwoBits, false)
PREFILL(prefill_hq3_asym, kFourBits, kTwoBits, true)
PREFILL(prefill_hq4_sym, kFourBits, kFourBits, false)
PREFILL(prefill_hq4_asym, kFourBits, kFourBits, true)
