// Decode attention over exact pages alone, f16: a warp's tokens come through a ring of
// its own in shared memory, so that all but a few of a block's bytes are on their way
// while it computes.
#pragma once
#include "exact.cuh"

template <int D, int STAGES>
struct ExactRing {
  using E = Exact<D>;
  static constexpr int kUnit = 16;  // tokens of a stage
  // Bytes of a token's K and V: no two of the lanes that are served at once meet in a
  // bank, of K eight lanes with two tokens, of V with four.
  static constexpr int kKey = 2 * D + 64, kValue = 2 * D + 16, kStage = kUnit * (kKey + kValue);

  // copy starts the copies of a stage, or of nothing beyond the last token.
  DEV void copy(u8* stage, const AttendParams& p, const Item& it, u64 page, int first, int lane) {
    if (first < it.exactHi) {
      constexpr int kPieces = D / 8, kRows = 32 / kPieces;  // of a token; tokens of a pass
      const u8* from = (const u8*)(page + p.exactLayer) + 2 * it.head * E::kHalf + first % kTokens * D * 2 + 16 * lane;
      u8* to = stage + lane / kPieces * kKey + lane % kPieces * 16;
#pragma unroll
      for (int t = 0; t < kUnit; t += kRows) copy16(to + t * kKey, from + t * D * 2);
      to = stage + kUnit * kKey + lane / kPieces * kValue + lane % kPieces * 16;
#pragma unroll
      for (int t = 0; t < kUnit; t += kRows) copy16(to + t * kValue, from + E::kHalf + t * D * 2);
    }
    copyCommit();
  }

  // run does a warp's share of an item, of which all tokens are exact and none is
  // skipped.
  template <int NQ>
  DEV void run(const AttendParams& p, const Item& it, u8* ring, State* states, int warp, int warps, int lane) {
    int r = lane >> 2, q = lane & 3, step = kUnit * warps;
    const u64* pages = p.exact + (u64)it.sequence * p.pages;
    auto page = [&](int first) { return first < it.exactHi ? pages[first / kTokens] : 0; };
    int first = it.exactLo + kUnit * warp, ahead = first + (STAGES - 1) * step;
#pragma unroll
    for (int k = 0; k < STAGES - 1; k++) copy(ring + k * kStage, p, it, page(first + k * step), first + k * step, lane);
    u64 next = page(ahead);
    u32 high[D / 8], low[D / 8];
    E::loadQueries(high, low, p, it, NQ, lane);
    typename E::Sums s = E::none();
    int stage = 0;
#pragma unroll 1
    for (; first < it.exactHi; first += step, ahead += step) {
      copyWait<STAGES - 2>();
      warpSync();  // and all are done with the stage before
      copy(ring + (stage + STAGES - 1) % STAGES * kStage, p, it, next, ahead, lane);
      next = page(ahead + step);
      const u8* from = ring + stage * kStage;
      int tokens = it.exactHi - first;
      auto keys = [&](int i, int c) { return load<Quad32>(from + i * kKey + 2 * c); };
      auto values = [&](int i, int c) { return i < tokens ? load<Quad32>(from + kUnit * kKey + i * kValue + 2 * c) : Quad32{0, 0, 0, 0}; };
      E::add(s, high, low, tokens, keys, values, r, q);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    copyWait<0>();
    warpSync();  // the ring's beginning is for the values now
    E::template store<NQ>(s, states, (float*)ring, r, q);
  }
};
