// What stands between a layer's products and its attention: queries, keys and
// values on their way in, and outputs on their way out.
#pragma once
#include "encode.cuh"
#include "layer.cuh"

static constexpr int kTurnThreads = 256;  // a warp for each head of a row

struct TurnParams {
  const float* x;              // [row][heads + 2·kvHeads][dim]: queries, keys, values, as one product gives them
  const float* bias;           // [heads + 2·kvHeads][dim]; null: none
  const float *qNorm, *kNorm;  // [dim] of QK-norm; null: none
  const float *cos, *sin;      // [position][pairs]
  const int* positions;        // [row]; negative: a row of padding
  const float* signs;          // [dim] of K's rotation, which queries share; null: none
  const float* map;            // [kv head][dim in][dim out] of queries in its place; null: none
  float *q, *k, *v;            // [row][heads or kvHeads][dim]
  int rows, heads, kvHeads, pairs, interleaved;
  float eps, scale;  // scale: of the Hadamard matrix
  int pad;
};

// A head's bias, norm and rotary embedding, by a warp with room for it; queries go on
// into the cache's basis. A lane has channels lane + 32j in v too.
template <int D>
DEV void turnHead(const TurnParams& p, int row, int head, float* head_, int lane, float (&v)[D / 32]) {
  constexpr int kEach = D / 32;
  int i = row * (p.heads + 2 * p.kvHeads) + head, position = max(p.positions[row], 0);
#pragma unroll
  for (int j = 0; j < kEach; j++) {
    v[j] = p.x[(u64)i * D + lane + 32 * j];
    if (p.bias) v[j] += p.bias[head * D + lane + 32 * j];
  }
  bool value = head >= p.heads + p.kvHeads, query = head < p.heads;
  const float* weight = query ? p.qNorm : p.kNorm;
  if (!value) {
    if (weight) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kEach; j++) sum += v[j] * v[j];
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) sum += laneXor(sum, mask);
      float scale = 1 / sqrtRound(sum / (float)D + p.eps);
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j] = v[j] * scale * weight[lane + 32 * j];
    }
#pragma unroll
    for (int j = 0; j < kEach; j++) head_[lane + 32 * j] = v[j];
    warpSync();
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      int c = lane + 32 * j;
      if (c >= 2 * p.pairs) continue;
      int pair = p.interleaved ? c / 2 : c % p.pairs;
      bool second = p.interleaved ? c % 2 == 1 : c >= p.pairs;
      float other = head_[p.interleaved ? c ^ 1 : second ? c - p.pairs : c + p.pairs];
      float cosine = p.cos[(u64)position * p.pairs + pair], sine = p.sin[(u64)position * p.pairs + pair];
      v[j] = second ? v[j] * cosine + other * sine : v[j] * cosine - other * sine;
    }
  }
  if (query && p.map) mapHead(v, p.map + head / (p.heads / p.kvHeads) * (D * D), lane);
  if (query && p.signs) {
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] *= p.signs[lane + 32 * j];
    hadamard(v, lane, p.scale);
  }
  float* to = query ? p.q + ((u64)row * p.heads + head) * D
              : value ? p.v + ((u64)row * p.kvHeads + head - p.heads - p.kvHeads) * D
                      : p.k + ((u64)row * p.kvHeads + head - p.heads) * D;
#pragma unroll
  for (int j = 0; j < kEach; j++) to[lane + 32 * j] = v[j];
}

template <int D>
DEV void turn(const TurnParams& p) {
  SHARED(memory);
  letNextStart();
  waitBefore();
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = p.heads + 2 * p.kvHeads;
  int i = blockIdx.x * (kTurnThreads / 32) + warp;
  float v[D / 32];
  if (i < p.rows * all) turnHead<D>(p, i / all, i % all, (float*)memory + warp * D, lane, v);
}

KERNEL(turn_64, TurnParams, kTurnThreads, 4) { turn<64>(p); }
KERNEL(turn_128, TurnParams, kTurnThreads, 4) { turn<128>(p); }

struct EnterParams {
  TurnParams turn;
  EncodeParams encode;  // of one row of each sequence
};

// Turning and encoding single rows in one launch: block (0, head, 2·sequence + half)
// turns a head of K or V and takes it into its page, those of further heads turn
// queries, kEncodeThreads/32 each.
template <int D>
DEV void enter(const EnterParams& p) {
  SHARED(memory);
  letNextStart();
  const TurnParams& t = p.turn;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = blockIdx.z & 1, row = blockIdx.z >> 1, head = blockIdx.y;
  // what is no kernel's result is asked for early
  int at = t.positions[row], position = max(at, 0);
  if (32 * lane < t.pairs) {
    fetchLine(t.cos + (u64)position * t.pairs + 32 * lane);
    fetchLine(t.sin + (u64)position * t.pairs + 32 * lane);
  }
  const EncodeHalf& h = p.encode.half[half];
  if (lane == 31) fetchLine(p.encode.exact + (u64)row * p.encode.pages + position / 64);
  if (head < t.kvHeads && lane < D / 32) {
    if (h.signs) fetchLine(h.signs + 32 * lane);
    if (h.shift) fetchLine(h.shift + head * D + 32 * lane);
  }
  waitBefore();
  float* room = (float*)memory + warp * D;
  float v[D / 32];
  if (head >= t.kvHeads) {
    int query = (2 * (head - t.kvHeads) + half) * (kEncodeThreads / 32) + warp;
    if (query < t.heads) turnHead<D>(t, row, query, room, lane, v);
    return;
  }
  if (warp == 0) turnHead<D>(t, row, t.heads + half * t.kvHeads + head, room, lane, v);
  if (at < 0) return;
  u64 page = (u64)row * p.encode.pages + at / 64;
  if (Encode<D>::putNext(p.encode, page, head, half, at % 64, v)) Encode<D>::finish(p.encode, page, head, half, 64);
}

KERNEL(enter_64, EnterParams, kEncodeThreads, 12) { enter<64>(p); }
KERNEL(enter_128, EnterParams, kEncodeThreads, 12) { enter<128>(p); }

struct LeaveParams {
  const float* x;      // [row][head][dim], in V's basis
  const float* signs;  // [dim] of V's rotation; null: none
  const float* mean;   // [kv head][dim]; null: none
  u16* out;            // [row][head][dim]
  int n, heads, group, brain;  // n: rows · heads
  float scale;                 // of the Hadamard matrix
  int pad;
};

// leaveHead takes one head's outputs out of V's basis; signs and mean (of the KV
// head) may be null.
template <int D>
DEV void leaveHead(u16* to, const float* x, const float* signs, const float* mean, float scale, int brain, int lane) {
  constexpr int kEach = D / 32;
  float v[kEach];
#pragma unroll
  for (int j = 0; j < kEach; j++) v[j] = x[lane + 32 * j];
  if (signs) {
    hadamard(v, lane, scale);
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] *= signs[lane + 32 * j];
  }
#pragma unroll
  for (int j = 0; j < kEach; j++) {
    if (mean) v[j] += mean[lane + 32 * j];
    to[lane + 32 * j] = narrowTo(v[j], brain);
  }
}

// Attention's outputs, as the next product reads them.
template <int D>
DEV void leave(const LeaveParams& p) {
  letNextStart();
  waitBefore();
  int lane = threadIdx.x % 32, i = blockIdx.x * (kTurnThreads / 32) + threadIdx.x / 32;
  if (i >= p.n) return;
  leaveHead<D>(p.out + (u64)i * D, p.x + (u64)i * D, p.signs, p.mean ? p.mean + i % p.heads / p.group * D : nullptr, p.scale, p.brain, lane);
}

KERNEL(leave_64, LeaveParams, kTurnThreads, 4) { leave<64>(p); }
KERNEL(leave_128, LeaveParams, kTurnThreads, 4) { leave<128>(p); }

struct BiasParams {
  float* x;  // [row][dim], in place
  const float* bias;
  int dim, n;  // n: rows · dim
};

KERNEL(add_bias, BiasParams, kLayerThreads, 4) {
  int i = blockIdx.x * kLayerThreads + threadIdx.x;
  if (i < p.n) p.x[i] += p.bias[i % p.dim];
}
