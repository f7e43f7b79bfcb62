// What stands between a layer's products and its attention: queries, keys and
// values on their way in, and outputs on their way out.
#pragma once
#include "encode.cuh"
#include "layer.cuh"

static constexpr int kTurnThreads = 256;  // a warp for some heads of a row

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
  int each;  // heads of a row that a warp of turn takes
};

// What a head of a row is turned with that no kernel gives: asked for before the kernels
// before this one are done. A lane has channels lane + 32j.
template <int D>
struct TurnWith {
  float cosine[D / 32], sine[D / 32], signs[D / 32];  // the sine of a channel's partner
};

template <int D>
DEV TurnWith<D> turnWith(const TurnParams& p, int position, int lane) {
  TurnWith<D> w;
#pragma unroll
  for (int j = 0; j < D / 32; j++) {
    int c = lane + 32 * j, pair = p.interleaved ? c / 2 : c >= p.pairs ? c - p.pairs : c;
    bool second = p.interleaved ? c % 2 == 1 : c >= p.pairs, turned = c < 2 * p.pairs;
    u64 at = (u64)max(position, 0) * p.pairs + pair;
    w.cosine[j] = turned ? p.cos[at] : 1;
    w.sine[j] = !turned ? 0 : second ? p.sin[at] : -p.sin[at];
    w.signs[j] = p.signs ? p.signs[c] : 1;
  }
  return w;
}

// A head's numbers, as their product gives them.
template <int D>
DEV void loadHead(const TurnParams& p, int row, int head, int lane, float (&v)[D / 32]) {
  const float* x = p.x + (u64)(row * (p.heads + 2 * p.kvHeads) + head) * D + lane;
#pragma unroll
  for (int j = 0; j < D / 32; j++) v[j] = x[32 * j];
}

// A head's bias, norm and rotary embedding, by a warp with room for it; queries go on
// into the cache's basis. A lane has channels lane + 32j in v too.
template <int D>
DEV void turnHead(const TurnParams& p, const TurnWith<D>& w, int row, int head, float* room, int lane, float (&v)[D / 32]) {
  constexpr int kEach = D / 32;
#pragma unroll
  for (int j = 0; j < kEach; j++)
    if (p.bias) v[j] += p.bias[head * D + lane + 32 * j];
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
    float other[kEach];
    if (2 * p.pairs == D && !p.interleaved) { // a lane's partners are its own
#pragma unroll
      for (int j = 0; j < kEach; j++) other[j] = v[j ^ (kEach / 2)];
    } else {
#pragma unroll
      for (int j = 0; j < kEach; j++) room[lane + 32 * j] = v[j];
      warpSync();
#pragma unroll
      for (int j = 0; j < kEach; j++) {
        int c = lane + 32 * j;
        other[j] = c >= 2 * p.pairs ? 0 : room[p.interleaved ? c ^ 1 : c >= p.pairs ? c - p.pairs : c + p.pairs];
      }
    }
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] = v[j] * w.cosine[j] + other[j] * w.sine[j];
  }
  if (query && p.map) mapHead(v, p.map + head / (p.heads / p.kvHeads) * (D * D), lane);
  if (query && p.signs) {
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] *= w.signs[j];
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
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = p.heads + 2 * p.kvHeads, spans = (all + p.each - 1) / p.each;
  int i = blockIdx.x * (kTurnThreads / 32) + warp, row = min(i / spans, p.rows - 1), head = i % spans * p.each, end = min(head + p.each, all);
  TurnWith<D> w = turnWith<D>(p, p.positions[row], lane);
  if (p.map && p.each == 1 && i < p.heads) fetchMap<D>(p.map, i, p.heads / p.kvHeads);
  waitBefore();
  if (i >= p.rows * spans) return;
  float next[D / 32];
  loadHead<D>(p, row, head, lane, next);
#pragma unroll 1
  for (; head < end; head++) {
    float v[D / 32];
#pragma unroll
    for (int j = 0; j < D / 32; j++) v[j] = next[j];
    if (head + 1 < end) loadHead<D>(p, row, head + 1, lane, next);
    turnHead<D>(p, w, row, head, (float*)memory + warp * D, lane, v);
    warpSync();  // before its room is another head's
  }
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
  int at = t.positions[row], query = (2 * (head - t.kvHeads) + half) * (kEncodeThreads / 32) + warp;
  bool stored = head < t.kvHeads;
  const EncodeHalf& h = p.encode.half[half];
  TurnWith<D> w = turnWith<D>(t, at, lane);
  typename Encode<D>::Basis basis;
  u64 page = (u64)row * p.encode.pages + max(at, 0) / 64;
  u16* exact = nullptr;
  if (stored) {
    basis = Encode<D>::basis(h, head, lane);
    exact = Encode<D>::exactHalf(p.encode, page, head, half);
  }
  if (row == 0 && h.map && stored && warp == 0) fetchMap<D>(h.map, head, 1);
  if (row == 0 && t.map && !stored && query < t.heads) fetchMap<D>(t.map, query, t.heads / t.kvHeads);
  waitBefore();
  float* room = (float*)memory + warp * D;
  float v[D / 32];
  if (!stored) {
    if (query >= t.heads) return;
    loadHead<D>(t, row, query, lane, v);
    turnHead<D>(t, w, row, query, room, lane, v);
    return;
  }
  if (warp == 0) {
    int from = t.heads + half * t.kvHeads + head;
    loadHead<D>(t, row, from, lane, v);
    turnHead<D>(t, w, row, from, room, lane, v);
  }
  if (at < 0) return;
  if (Encode<D>::putNext(p.encode, h, basis, head, exact, at % 64, v)) Encode<D>::finish(p.encode, page, head, half, 64);
}

KERNEL(enter_64, EnterParams, kEncodeThreads, 10) { enter<64>(p); }
KERNEL(enter_128, EnterParams, kEncodeThreads, 10) { enter<128>(p); }

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
