// A kernel that can make the mistakes which the emulated GPUs are there to find.
#pragma once

enum Mistake {
  kNoMistake,
  kNoCopyWait,    // products begin before copies have come
  kNoFence,       // nothing shows the products what threads have stored
  kNoSettled,     // nothing settles the registers before products
  kThreeWarps,    // a warp leaves a product out
  kEarly,         // sums are used before the wait
  kUnnamed,       // a wait does not name its sums
  kOverwritten,   // operands change before the wait
  kNobodyWaits,   // for a product
  kOddAddress,
  kNoBarrier,     // one that nobody has begun
  kNeverArrives,  // somebody at a barrier
  kMistakes
};
struct MistakeParams {
  const u8* ones;  // 8 KiB of float16
  float* out;      // 128 sums of 16 products
  int mistake;
};

KERNEL(make_mistake, MistakeParams, 128, 1) {
  SHARED(memory);
  u8 *a = memory, *b = memory + 8192;
  u64* barrier = (u64*)(memory + 16384);
  int thread = threadIdx.x;
  auto store = [&](u32 x) {
    for (int i = thread; i < 512; i += 128) *(Quad32*)(b + 16 * i) = Quad32{x, x, x, x};
  };
  for (int i = thread; i < 512; i += 128) copy16(a + 16 * i, p.ones + 16 * i);
  copyCommit();
  if (p.mistake != kNoCopyWait) copyWait<0>();
  store(load<u32>(p.ones));
  if (p.mistake == kOddAddress) store(load<Quad32>(p.ones + 4).x);
  if (p.mistake == kNeverArrives && thread == 0) barrierInit(barrier, 2);
  if (p.mistake != kNoFence) operandFence();
  blockSync();
  if (p.mistake == kNeverArrives && thread == 0) barrierArrive(barrier);
  if (p.mistake == kNeverArrives || p.mistake == kNoBarrier) barrierWait(barrier, 0);

  float sum[32] = {};
  if (p.mistake != kNoSettled) groupFence();
  if (p.mistake != kThreeWarps || thread < 96) groupHalf<false>(sum, groupOperand(a), groupOperand(b));
  groupCommit();
  float early = sum[0];
  if (p.mistake == kOverwritten) {
    store(0);
    operandFence();
    blockSync();
  }
  if (p.mistake == kUnnamed) {
    groupWait();
  } else if (p.mistake != kNobodyWaits) {
    groupWait(sum);
  }
  p.out[thread] = p.mistake == kEarly ? early : sum[0];
}
