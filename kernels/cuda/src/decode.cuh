// The decode kernel: items of coded and of exact tokens, merged by whichever
// block comes last.
#pragma once
#include "exactring.cuh"

// Merging is little work done once, each of it waiting for the one before: no warp
// waits for another but once for all of its block. A warp takes some runs of values,
// and of each item's parts those that come last are merged with the others' by it.
template <int D, int WARPS, int NQ>
struct Merge {
  using R = Runs<D, NQ>;
  static constexpr int kRuns = R::kRuns;
  static constexpr int kBatch = 16, kRow = kBatch + 4;  // states merged at once
  static_assert(WARPS <= kBatch, "a lane has the states of two warps");

  // Shared memory beyond the warps' rings.
  struct Shared {
    State states[WARPS * NQ];  // [warp][query]
    Item item;                 // registers are short
  };

  // What a warp needs at the start of its ring: its values, then the weights that it
  // merges with.
  typedef float Weights[4][kRow];  // [q][state]
  static constexpr int kValues = NQ * D * 4, kRing = kValues + sizeof(Weights);

  // Whole is what has been merged: a lane's pair of channels, and their query's state.
  struct Whole {
    State state;
    float value[2];
  };

  // add merges a batch. A lane has the states r and r + 8 of its query, and its
  // values of all.
  DEV void add(Whole& s, const State (&x)[2], const Pair32 (&value)[kBatch], Weights& weights, int lane) {
    float m = larger(larger(x[0].m, x[1].m), s.state.m), sum = 0;
    warpSync();  // those of the batch before have been read
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) m = larger(m, laneXor(m, mask));
#pragma unroll
    for (int k = 0; k < 2; k++) {
      float w = x[k].sum > 0 ? exp2Fast(x[k].m - m) : 0;
      weights[lane & 3][(lane >> 2) + 8 * k] = w;
      sum += w * x[k].sum;
    }
    warpSync();
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) sum += laneXor(sum, mask);
    float shrink = s.state.sum > 0 ? exp2Fast(s.state.m - m) : 0;
    s.state = State{m, s.state.sum * shrink + sum};
    s.value[0] *= shrink, s.value[1] *= shrink;
#pragma unroll
    for (int k = 0; k < kBatch; k += 4) {
      Quad32 w = load<Quad32>(&weights[lane & 3][k]);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s.value[0] += asFloat(wordOf(w, j)) * asFloat(value[k + j].x);
        s.value[1] += asFloat(wordOf(w, j)) * asFloat(value[k + j].y);
      }
    }
  }

  // block merges the warps' states, whose values lie at the start of their rings,
  // and then the parts if this one is the last of them.
  DEV void block(const AttendParams& p, Shared* s, u8* rings, int stride) {
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    Weights& weights = *(Weights*)(rings + warp * stride + kValues);
    const Item& it = s->item;
    blockSync();
#pragma unroll 1
    for (int run = warp; run < kRuns; run += WARPS) {
      const State* states = s->states + R::query(run, lane);
      const u8* values = rings + 256 * run + 8 * lane;
      State x[2];
      Pair32 value[kBatch];
#pragma unroll
      for (int k = 0; k < 2; k++) x[k] = (lane >> 2) + 8 * k < WARPS ? states[((lane >> 2) + 8 * k) * NQ] : State{kMinusInf, 0};
#pragma unroll
      for (int k = 0; k < kBatch; k++) value[k] = k < WARPS ? load<Pair32>(values + k * stride) : Pair32{0, 0};
      Whole whole = {{kMinusInf, 0}, {0, 0}};
      add(whole, x, value, weights, lane);
      if (it.parts == 1) {
        put(p, it, run, whole, lane);
      } else {
        u64 mine = (u64)it.slot * kRuns + run;
        *(Pair32*)(p.values + 64 * mine + 2 * lane) = Pair32{asBits(whole.value[0]), asBits(whole.value[1])};
        if (lane < 4) p.states[4 * mine + lane] = whole.state;
      }
    }
    if (it.parts == 1 || warp >= kRuns || !last(p, it, warp, lane)) return;
#pragma unroll 1
    for (int run = warp; run < kRuns; run += WARPS) parts(p, it, run, weights, lane);
  }

  // last reports whether a warp's runs are the last of all parts that come.
  DEV bool last(const AttendParams& p, const Item& it, int warp, int lane) {
    u32* arrived = p.arrived + (u64)it.first * kRuns + warp;
    warpSync();
    int order = 0;
    if (lane == 0) order = (int)countIn(arrived);
    order = laneShuffle(order, 0);
    warpSync();
    if (order != it.parts - 1) return false;
    if (lane == 0) *arrived = 0;  // ready for the next launch
    return true;
  }

  // parts merges a run's parts.
  DEV void parts(const AttendParams& p, const Item& it, int run, Weights& weights, int lane) {
    u64 first = (u64)it.first * kRuns + run;
    const State* states = p.states + 4 * first + (lane & 3);
    const float* values = p.values + 64 * first + 2 * lane;
    Whole s = {{kMinusInf, 0}, {0, 0}};
#pragma unroll 1
    for (int at = 0; at < it.parts; at += kBatch) {
      State x[2];
      Pair32 value[kBatch];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int i = (lane >> 2) + 8 * k;
        x[k] = at + i < it.parts ? states[i * 4 * kRuns] : State{kMinusInf, 0};
      }
#pragma unroll
      for (int k = 0; k < kBatch; k++) value[k] = at + k < it.parts ? load<Pair32>(values + k * 64 * kRuns) : Pair32{0, 0};
      add(s, x, value, weights, lane);
      states += kBatch * 4 * kRuns, values += kBatch * 64 * kRuns;
    }
    put(p, it, run, s, lane);
  }

  DEV void put(const AttendParams& p, const Item& it, int run, const Whole& s, int lane) {
    int row = it.firstQuery + R::query(run, lane);
    if (row >= p.group) return;
    float inv = s.state.sum > 0 ? reciprocal(s.state.sum) : 0;
    float* out = p.out + ((u64)(it.sequence * p.heads + it.head) * p.group + row) * D + R::channel(run, lane);
    *(Pair32*)out = Pair32{asBits(s.value[0] * inv), asBits(s.value[1] * inv)};
  }
};

template <int D, int K, int V, bool ASYM, int NQ, int WARPS>
DEV void decode(const AttendParams& p) {
  using Coded = Decode<D, K, V, ASYM, NQ>;
  SHARED(memory);
  using Layout = typename Coded::Layout;
  using M = Merge<D, WARPS, NQ>;
  const int share = max(Layout::stage(Layout::of(p)) * kStages, M::kRing);
  using Queries = QueryCodes<D, K, NQ>;
  using Pages = typename Coded::Pages;
  typename Queries::Shared* queries = (typename Queries::Shared*)(memory + WARPS * share);
  typename M::Shared* shared = (typename M::Shared*)(queries + 1);
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  u8* ring = memory + warp * share;
  letNextStart();
  Item it = firstItem(p);
  while (it.parts > 0) {  // of a block too many: none
    State* states = shared->states + warp * NQ;
    bool coded = warp >= it.exactWarps;
    Pages pages = Pages::of(p, it, ring, warp - it.exactWarps, WARPS - it.exactWarps, lane);
    // Few pages may come before the kernel waits for the one before it; many would
    // stand in the queries' way.
    bool early = p.even.settled && it.hi - it.lo <= WARPS / 2;
    if (!coded) Exact<D>::ahead(p, it, warp, lane);
    Quad32 query;
    if (!early) {
      waitBefore();
      query = Queries::read(p, it, warp, lane);
    }
    if (coded) Pages::start(pages, 0, lane);
    if (early) {
      waitBefore();
      query = Queries::read(p, it, warp, lane);
    }
    if (warp < NQ) Queries::code(queries, query, p.scale, K == kPlan ? leadWords<D>(p.lowRows[0]) : 0, warp, lane);
    if (threadIdx.x == 0) shared->item = it;
    blockSync();
    if (coded) {
      Coded::run(pages, queries, states, (float*)ring, lane);
    } else {
      Exact<D>::template run<NQ>(p, shared->item, states, (float*)ring, warp, shared->item.exactWarps, lane);
    }
    M::block(p, shared, memory, share);
    int next = shared->item.next;
    if (next < 0) return;
    blockSync();  // rings and states are used again
    it = itemAt(p, next);
  }
}

// The same for exact tokens alone: f16.
template <int D, int NQ, int WARPS, int STAGES>
DEV void decodeExact(const AttendParams& p) {
  SHARED(memory);
  using M = Merge<D, WARPS, NQ>;
  using Ring = ExactRing<D, STAGES>;
  constexpr int kRing = Ring::kStage * STAGES, kShare = kRing > M::kRing ? kRing : M::kRing;
  typename M::Shared* shared = (typename M::Shared*)(memory + WARPS * kShare);
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  letNextStart();
  Item it = firstItem(p);
  while (it.parts > 0) {
    if (it.exactHi - it.exactLo <= 16 * WARPS) Exact<D>::ahead(p, it, warp, lane);
    if (threadIdx.x == 0) shared->item = it;
    waitBefore();
    Ring::template run<NQ>(p, it, memory + warp * kShare, shared->states + warp * NQ, warp, WARPS, lane);
    M::block(p, shared, memory, kShare);
    int next = shared->item.next;
    if (next < 0) return;
    blockSync();
    it = itemAt(p, next);
  }
}
