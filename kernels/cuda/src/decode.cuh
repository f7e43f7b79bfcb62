// The decode kernel: items of coded and of exact tokens, merged by whichever
// block comes last.
#pragma once
#include "attend.cuh"
#include "exact.cuh"

// Merging is little work done once, with its code fetched from memory for it: it
// is written to be short.
template <int D, int WARPS, int NQ>
struct Merge {
  static constexpr int kValues = NQ * D;
  static_assert(WARPS <= 16, "half a warp weighs the warps of one query");

  // Shared memory beyond the warps' rings.
  struct Shared {
    State states[WARPS * NQ];  // [warp][query]
    float weights[WARPS * NQ];
    State total[NQ];
    u32 order;
  };

  // block merges the warps' states, whose values lie at the start of their rings,
  // into one and sends it on.
  DEV void block(const AttendParams& p, const Item& it, Shared* s, u8* rings, int stride) {
    blockSync();
    if (threadIdx.x < 16 * NQ) {
      int query = threadIdx.x / 16, w = threadIdx.x % 16;
      State x = w < WARPS ? s->states[w * NQ + query] : State{kMinusInf, 0};
      float m = x.m;
#pragma unroll
      for (int mask = 8; mask > 0; mask /= 2) m = larger(m, laneXor(m, mask));
      float weight = x.sum > 0 ? exp2Fast(x.m - m) : 0, sum = weight * x.sum;
#pragma unroll
      for (int mask = 8; mask > 0; mask /= 2) sum += laneXor(sum, mask);
      if (w < WARPS) s->weights[w * NQ + query] = weight;
      if (w == 0) {
        s->total[query] = State{m, sum};
        if (it.parts > 1) ((State*)p.states)[it.slot * NQ + query] = State{m, sum};
      }
    }
    blockSync();
    for (int i = threadIdx.x; i < kValues; i += 32 * WARPS) {
      int query = i / D;
      float value = 0;
#pragma unroll 8
      for (int w = 0; w < WARPS; w++) value += s->weights[w * NQ + query] * ((const float*)(rings + w * stride))[i];
      if (it.parts > 1) {
        p.values[(u64)it.slot * kValues + i] = value;
      } else {
        put(p, it, query, i % D, value, s->total[query].sum);
      }
    }
    if (it.parts > 1) last(p, it, s, (float*)rings);
    blockSync();
  }

  DEV void put(const AttendParams& p, const Item& it, int query, int channel, float value, float sum) {
    int row = it.firstQuery + query;
    if (row < p.group) p.out[((u64)(it.sequence * p.heads + it.head) * p.group + row) * D + channel] = sum > 0 ? value / sum : 0;
  }

  // last merges the parts' states in the block that comes last of them.
  DEV void last(const AttendParams& p, const Item& it, Shared* s, float* weights) {
    blockSync();
    if (threadIdx.x == 0) s->order = countIn(&p.arrived[it.first]);
    blockSync();
    if (s->order != (u32)it.parts - 1) return;
    if (threadIdx.x == 0) p.arrived[it.first] = 0;  // ready for the next launch
    int query = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (query < NQ) {
      const State* states = (const State*)p.states + (u64)it.first * NQ + query;
      State x = lane < it.parts ? states[lane * NQ] : State{kMinusInf, 0};
      float m = x.m, sum = 0;
#pragma unroll 1
      for (int k = lane + 32; k < it.parts; k += 32) m = larger(m, states[k * NQ].m);
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) m = larger(m, laneXor(m, mask));
#pragma unroll 1
      for (int k = lane; k < it.parts; k += 32) {
        if (k > lane) x = states[k * NQ];
        float weight = x.sum > 0 ? exp2Fast(x.m - m) : 0;
        weights[k * NQ + query] = weight;
        sum += weight * x.sum;
      }
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) sum += laneXor(sum, mask);
      if (lane == 0) s->total[query] = State{m, sum};
    }
    blockSync();
    for (int i = threadIdx.x; i < kValues; i += 32 * WARPS) {
      const float* values = p.values + (u64)it.first * kValues + i;
      float value = 0;
#pragma unroll 16
      for (int k = 0; k < it.parts; k++) value += weights[k * NQ + i / D] * values[(u64)k * kValues];
      put(p, it, i / D, i % D, value, s->total[i / D].sum);
    }
  }
};

template <int D, int K, int V, bool ASYM, int NQ, int WARPS, int STAGES>
DEV void decode(const AttendParams& p) {
  using Coded = Decode<D, K, V, ASYM, NQ>;
  SHARED(memory);
  using Layout = typename Coded::Layout;
  const int share = max(Layout::stage(Layout::of(p)) * STAGES, NQ * D * 4);
  using M = Merge<D, WARPS, NQ>;
  using Queries = QueryCodes<D, K, NQ>;
  using Pages = typename Coded::template Pages<STAGES>;
  typename Queries::Shared* queries = (typename Queries::Shared*)(memory + WARPS * share);
  typename M::Shared* shared = (typename M::Shared*)(queries + 1);
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  u8* ring = memory + warp * share;
  letNextStart();
  for (int i = blockIdx.x; i >= 0;) {
    const Item it = p.items[i];
    if (it.parts == 0) return;  // of a block too many
    State* states = shared->states + warp * NQ;
    Pages pages = Pages::of(p, it, ring, warp - it.exactWarps, WARPS - it.exactWarps);
    // Few pages may come before the kernel waits for the one before it; many would
    // stand in the queries' way.
    bool early = p.settled && it.hi - it.lo <= WARPS / 2;
    if (early && warp >= it.exactWarps) Pages::template begin<STAGES - 1>(pages, lane);
    if (warp < it.exactWarps) Exact<D>::ahead(p, it, warp, lane);
    waitBefore();
    Quad32 query = Queries::read(p, it, warp, lane);
    if (!early && warp >= it.exactWarps) Pages::template begin<STAGES - 1>(pages, lane);
    if (warp < NQ) Queries::code(queries, query, p.scale, K == kPlan ? leadWords<D>(p.lowRows[0]) : 0, warp, lane);
    blockSync();
    if (warp < it.exactWarps) {
      Exact<D>::run(p, it, NQ, states, (float*)ring, warp, it.exactWarps, lane);
    } else {
      Coded::template run<STAGES>(pages, queries, states, (float*)ring, lane);
    }
    M::block(p, it, shared, memory, share);
    i = it.next;
  }
}

// The same for exact tokens alone: f16.
template <int D, int NQ, int WARPS>
DEV void decodeExact(const AttendParams& p) {
  SHARED(memory);
  constexpr int kShare = NQ * D * 4;
  using M = Merge<D, WARPS, NQ>;
  typename M::Shared* shared = (typename M::Shared*)(memory + WARPS * kShare);
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  letNextStart();
  for (int i = blockIdx.x; i >= 0;) {
    const Item it = p.items[i];
    if (it.parts == 0) return;
    if (it.exactHi - it.exactLo <= 16 * WARPS) Exact<D>::ahead(p, it, warp, lane);
    waitBefore();
    Exact<D>::run(p, it, NQ, shared->states + warp * NQ, (float*)(memory + warp * kShare), warp, WARPS, lane);
    M::block(p, it, shared, memory, kShare);
    i = it.next;
  }
}
