// Products of few rows: what decoding does all day. The weights are read once, at
// the memory's speed, and are the wide operand of the tensor cores; the rows of x
// are its eight columns, however few they are. A row's sums run in one order,
// whatever other rows there are.
#pragma once
#include "layer.cuh"

static constexpr int kFewWarps = 8, kFewThreads = 32 * kFewWarps, kFewAhead = 4;

struct FewParams {
  const u16* w;  // [out][in]; of a gated product: gates [out][in] and then ups
  const u16* x;  // [row][in]
  float* y;      // [row][out]
  u16* gated;    // [row][out]: silu(gate)·up, in place of y; null: not gated
  int in, out, rows, brain;  // in: a multiple of 32; rows: at most 8
};

DEV Quad32 loadOnce(const u16* p) {
  u32 w[4];
  loadOnce16(w, p);
  return Quad32{w[0], w[1], w[2], w[3]};
}

// A block has 16 rows of the weights (gated: 8 gates and their ups), and its warps
// every eighth run of 32 of what is summed over. Which of the 32 a lane's registers
// hold is the same for both operands, so that each reads 16 bytes at a time.
template <bool BRAIN>
DEV void fewRows(const FewParams& p) {
  SHARED(memory);
  float* sums = (float*)memory;  // [warp][16 rows][8 columns]
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane >> 2, q = lane & 3;
  bool gated = p.gated != nullptr;
  int first = blockIdx.x * (gated ? 8 : 16), last = p.out - 1;
  u64 low = (u64)min(first + r, last) * p.in, high = gated ? (u64)(p.out + min(first + r, last)) * p.in : (u64)min(first + r + 8, last) * p.in;
  const u16 *wl = p.w + low + 8 * q, *wh = p.w + high + 8 * q, *x = p.x + (u64)min(r, p.rows - 1) * p.in + 8 * q;
  float c[4] = {0, 0, 0, 0};
  for (int k = 32 * warp; k < p.in; k += 32 * kFewWarps * kFewAhead) {
    Quad32 a[kFewAhead], b[kFewAhead], v[kFewAhead];
#pragma unroll
    for (int i = 0; i < kFewAhead; i++) {
      int at = k + 32 * kFewWarps * i;
      bool there = at < p.in;
      a[i] = there ? loadOnce(wl + at) : Quad32{0, 0, 0, 0};
      b[i] = there ? loadOnce(wh + at) : Quad32{0, 0, 0, 0};
      v[i] = there ? load<Quad32>(x + at) : Quad32{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < kFewAhead; i++) {
      if (BRAIN) {
        mmaBrain(c, a[i].x, b[i].x, a[i].y, b[i].y, v[i].x, v[i].y);
        mmaBrain(c, a[i].z, b[i].z, a[i].w, b[i].w, v[i].z, v[i].w);
      } else {
        mmaHalf(c, a[i].x, b[i].x, a[i].y, b[i].y, v[i].x, v[i].y);
        mmaHalf(c, a[i].z, b[i].z, a[i].w, b[i].w, v[i].z, v[i].w);
      }
    }
  }
#pragma unroll
  for (int e = 0; e < 4; e++) sums[warp * 128 + (r + 8 * (e >> 1)) * 8 + 2 * q + (e & 1)] = c[e];
  blockSync();
  int i = threadIdx.x, row = i % 8, o = i / 8;  // threads side by side: rows of x
  if (i >= 128) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kFewWarps; w++) sum += sums[w * 128 + i];
  if (!gated) {
    if (row < p.rows && first + o <= last) p.y[(u64)row * p.out + first + o] = sum;
    return;
  }
  float up = 0;
  if (o >= 8) return;
#pragma unroll
  for (int w = 0; w < kFewWarps; w++) up += sums[w * 128 + i + 64];
  if (row < p.rows && first + o <= last) p.gated[(u64)row * p.out + first + o] = narrowTo(sum / (1 + exp2Fast(-1.44269504f * sum)) * up, p.brain);
}

KERNEL(few_rows, FewParams, kFewThreads, 4) {
  if (p.brain) {
    fewRows<true>(p);
  } else {
    fewRows<false>(p);
  }
}
