// All kernels of package cuda, one translation unit (see ../build.sh).
#include "decode.cuh"
#include "encode.cuh"
#include "few.cuh"
#include "hack.cuh"
#include "layer.cuh"
#include "map.cuh"
#include "prefill.cuh"
#include "sample.cuh"
#include "select.cuh"
#include "step.cuh"
#ifdef TERSE_HOPPER
#include "exactwide.cuh"
#include "wide.cuh"
#endif

#ifndef TERSE_EMU
// What this was built from (build.sh).
extern "C" __device__ __constant__ const char terse_sources[] = TERSE_SOURCES;
#endif

#define DECODE(name, D, K, V, ASYM, NQ, WARPS) \
  KERNEL(decode_##name##_##D##_##NQ, AttendParams, 32 * WARPS, 1) { decode<D, K, V, ASYM, NQ, WARPS>(p); }
// For four and for eight queries of a KV head. decode.go knows the warps.
#define DECODE_BOTH(name, D, K, V, ASYM, WARPS) \
  DECODE(name, D, K, V, ASYM, 4, WARPS)         \
  DECODE(name, D, K, V, ASYM, 8, WARPS)
#define DECODE_ALL(name, D, K, V, WARPS)            \
  DECODE_BOTH(name##_sym, D, K, V, false, WARPS)    \
  DECODE_BOTH(name##_asym, D, K, V, true, WARPS)
#define DECODE_F16(D, STAGES)                                                         \
  KERNEL(decode_f16_##D##_4, AttendParams, 256, 1) { decodeExact<D, 4, 8, STAGES>(p); } \
  KERNEL(decode_f16_##D##_8, AttendParams, 256, 1) { decodeExact<D, 8, 8, STAGES>(p); }

DECODE_ALL(hq2, 128, kTwoBits, kTwoBits, 12)
DECODE_ALL(hq3, 128, kFourBits, kTwoBits, 8)
DECODE_ALL(hq4, 128, kFourBits, kFourBits, 8)
DECODE_ALL(lead32, 128, 32, kTwoBits, 12)
DECODE_BOTH(plan_sym, 128, kPlan, kTwoBits, false, 12)
DECODE_BOTH(plansome_sym, 128, kPlan, kSomeTokens, false, 12)
DECODE_BOTH(lead32some_sym, 128, 32, kSomeTokens, false, 12)
DECODE_BOTH(hq3some_asym, 128, kFourBits, kSomeTokens, true, 8)
DECODE_ALL(some, 128, kSomeTokens, kTwoBits, 12)
DECODE_ALL(somesome, 128, kSomeTokens, kSomeTokens, 12)
DECODE_F16(128, 3)

DECODE_ALL(hq2, 64, kTwoBits, kTwoBits, 12)
DECODE_ALL(hq3, 64, kFourBits, kTwoBits, 12)
DECODE_ALL(hq4, 64, kFourBits, kFourBits, 12)
DECODE_ALL(lead16, 64, 16, kTwoBits, 12)
DECODE_ALL(lead32, 64, 32, kTwoBits, 12)
DECODE_BOTH(plan_sym, 64, kPlan, kTwoBits, false, 12)
DECODE_BOTH(plansome_sym, 64, kPlan, kSomeTokens, false, 12)
DECODE_BOTH(lead16some_sym, 64, 16, kSomeTokens, false, 12)
DECODE_BOTH(hq3some_asym, 64, kFourBits, kSomeTokens, true, 12)
DECODE_ALL(some, 64, kSomeTokens, kTwoBits, 12)
DECODE_ALL(somesome, 64, kSomeTokens, kSomeTokens, 12)
DECODE_F16(64, 4)

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

KERNEL(encode_64, EncodeParams, kEncodeThreads, 10) { Encode<64>::run(p); }
KERNEL(encode_128, EncodeParams, kEncodeThreads, 10) { Encode<128>::run(p); }

#define PREFILL_SYM(name, D, K, V) \
  KERNEL(prefill_##name##_sym_##D, PrefillParams, 128, 3) { Prefill<D, K, V, false>::run(p); }
#define PREFILL_ASYM(name, D, K, V) \
  KERNEL(prefill_##name##_asym_##D, PrefillParams, 128, 3) { Prefill<D, K, V, true>::run(p); }
#define PREFILL(name, D, K, V) \
  PREFILL_SYM(name, D, K, V)   \
  PREFILL_ASYM(name, D, K, V)

PREFILL(hq2, 128, kTwoBits, kTwoBits)
PREFILL(hq3, 128, kFourBits, kTwoBits)
PREFILL(hq4, 128, kFourBits, kFourBits)
PREFILL(lead32, 128, 32, kTwoBits)
PREFILL_SYM(plan, 128, kPlan, kTwoBits)
PREFILL_SYM(plansome, 128, kPlan, kSomeTokens)
PREFILL_SYM(lead32some, 128, 32, kSomeTokens)
PREFILL_ASYM(hq3some, 128, kFourBits, kSomeTokens)
PREFILL(some, 128, kSomeTokens, kTwoBits)
PREFILL(somesome, 128, kSomeTokens, kSomeTokens)
PREFILL(hq2, 64, kTwoBits, kTwoBits)
PREFILL(hq3, 64, kFourBits, kTwoBits)
PREFILL(hq4, 64, kFourBits, kFourBits)
PREFILL(lead16, 64, 16, kTwoBits)
PREFILL(lead32, 64, 32, kTwoBits)
PREFILL_SYM(plan, 64, kPlan, kTwoBits)
PREFILL_SYM(plansome, 64, kPlan, kSomeTokens)
PREFILL_SYM(lead16some, 64, 16, kSomeTokens)
PREFILL_ASYM(hq3some, 64, kFourBits, kSomeTokens)
PREFILL(some, 64, kSomeTokens, kTwoBits)
PREFILL(somesome, 64, kSomeTokens, kSomeTokens)

#ifdef TERSE_HOPPER
#define WIDE_SYM(name, D, K, V) \
  KERNEL(wide_##name##_sym_##D, PrefillParams, (Wide<D, K, V, false>::kThreads), 1) { Wide<D, K, V, false>::run(p); }
#define WIDE(name, D, K, V) \
  WIDE_SYM(name, D, K, V)   \
  KERNEL(wide_##name##_asym_##D, PrefillParams, (Wide<D, K, V, true>::kThreads), 1) { Wide<D, K, V, true>::run(p); }

WIDE(hq2, 128, kTwoBits, kTwoBits)
WIDE(hq3, 128, kFourBits, kTwoBits)
WIDE(hq4, 128, kFourBits, kFourBits)
WIDE(lead32, 128, 32, kTwoBits)
WIDE_SYM(plan, 128, kPlan, kTwoBits)
WIDE(hq2, 64, kTwoBits, kTwoBits)
WIDE(hq3, 64, kFourBits, kTwoBits)
WIDE(hq4, 64, kFourBits, kFourBits)
WIDE(lead16, 64, 16, kTwoBits)
WIDE(lead32, 64, 32, kTwoBits)
WIDE_SYM(plan, 64, kPlan, kTwoBits)
KERNEL(exactwide_64, PrefillParams, ExactWide<64>::kThreads, 1) { ExactWide<64>::run(p); }
KERNEL(exactwide_128, PrefillParams, ExactWide<128>::kThreads, 1) { ExactWide<128>::run(p); }
#endif

KERNEL(hack_attend_64, HackAttendParams, 128, 4) { HackAttend<64>::run(p); }
KERNEL(hack_attend_128, HackAttendParams, 128, 4) { HackAttend<128>::run(p); }
KERNEL(hack_encode_64, HackEncodeParams, 256, 2) { HackEncode<64>::run(p); }
KERNEL(hack_encode_128, HackEncodeParams, 256, 2) { HackEncode<128>::run(p); }
