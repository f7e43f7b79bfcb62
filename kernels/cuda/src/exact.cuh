// Attention over exact float16 pages of D channels on the float16 tensor
// cores: the exact windows of coded formats, and the whole of f16. Queries are
// two float16 each, so that only the weights are rounded.
#pragma once
#include "attend.cuh"

template <int D>
struct Exact {
  static constexpr int kHalf = kTokens * D * 2;  // bytes of K or V of a head

  // row is exact token i's K (or V, half = 1) from channel c on.
  DEV const u8* row(const AttendParams& p, const Item& it, int i, int half, int c) {
    int t = i < it.sinks ? i : i + it.skip;
    const u8* page = (const u8*)(p.exact[(u64)it.sequence * p.pages + t / kTokens] + p.exactLayer);
    return page + (2 * it.head + half) * kHalf + (t % kTokens * D + c) * 2;
  }

  // ahead asks for a warp's first tokens, which but for the last are of earlier steps.
  DEV void ahead(const AttendParams& p, const Item& it, int warp, int lane) {
    int first = it.exactLo + 16 * warp;
    if (first < it.exactHi && lane < 2) fetchBytes(row(p, it, first, lane, 0), 16 * D * 2);
  }

  DEV void loadQueries(u32 (&high)[D / 8], u32 (&low)[D / 8], const AttendParams& p, const Item& it, int queries, int lane) {
    int r = lane >> 2, q = lane & 3, n = it.firstQuery + r;
    bool real = r < queries && n < p.group;
    const float* x = p.q + ((u64)(it.sequence * p.heads + it.head) * p.group + n) * D;
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
      int c = 32 * (i / 4) + 8 * q + 2 * (i % 4);
      float a = real ? x[c] * p.scale : 0, b = real ? x[c + 1] * p.scale : 0;
      high[i] = narrow2(a, b);
      low[i] = narrow2(a - widenLow(high[i]), b - widenHigh(high[i]));
    }
  }

  // Sums is what a lane has of queries 2q and 2q + 1.
  struct Sums {
    float m[2], sum[2], value[D / 16][4];
  };
  DEV Sums none() { return Sums{{kMinusInf, kMinusInf}, {0, 0}, {}}; }

  // run does a warp's share of an exact item: 16 tokens at a time.
  template <int NQ>
  DEV void run(const AttendParams& p, const Item& it, State* states, float* out, int warp, int warps, int lane) {
    int r = lane >> 2, q = lane & 3;
    u32 high[D / 8], low[D / 8];
    loadQueries(high, low, p, it, NQ, lane);
    Sums s = none();
    for (int first = it.exactLo + 16 * warp; first < it.exactHi; first += 16 * warps) {
      const u8* page = row(p, it, first, 0, 0);  // of all 16
      int tokens = it.exactHi - first;
      auto of = [&](int i, int half, int c) { return i < tokens ? load<Quad32>(page + half * kHalf + (i * D + c) * 2) : Quad32{0, 0, 0, 0}; };
      add(s, high, low, tokens, [&](int i, int c) { return of(i, 0, c); }, [&](int i, int c) { return of(i, 1, c); }, r, q);
    }
    store<NQ>(s, states, out, r, q);
  }

  // add adds 16 tokens, or so many of them as there are. keys and values give eight
  // channels of a token from one on; they are zero of tokens that are not there.
  template <class Keys, class Values>
  DEV void add(Sums& s, const u32 (&high)[D / 8], const u32 (&low)[D / 8], int tokens, Keys keys, Values values, int r, int q) {
    float x[4], w[4];
    scores(x, keys, tokens, high, low, r, q);
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float top = larger(x[e], x[2 + e]);
      top = larger(top, laneXor(top, 4));
      top = larger(top, laneXor(top, 8));
      top = larger(top, laneXor(top, 16));
      top = larger(top, s.m[e]);
      float shrink = exp2Fast(s.m[e] - top);
      s.m[e] = top;
      w[e] = exp2Fast(x[e] - top), w[2 + e] = exp2Fast(x[2 + e] - top);
      s.sum[e] = s.sum[e] * shrink + w[e] + w[2 + e];
#pragma unroll
      for (int i = 0; i < D / 16; i++) s.value[i][e] *= shrink, s.value[i][2 + e] *= shrink;
    }
    weigh(s, values, transpose8(narrow2(w[0], w[1])), transpose8(narrow2(w[2], w[3])), r, q);
  }

  template <int NQ>
  DEV void store(Sums& s, State* states, float* out, int r, int q) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
#pragma unroll
      for (int mask = 4; mask < 32; mask *= 2) s.sum[e] += laneXor(s.sum[e], mask);
      int query = 2 * q + e;
      if (query >= NQ) continue;
      if (r == 0) states[query] = State{s.m[e], s.sum[e]};
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        int c = 64 * (i / 4) + 8 * r + 2 * (i % 4);
        *(Pair32*)(out + Runs<D, NQ>::place(query, c)) = Pair32{asBits(s.value[i][e]), asBits(s.value[i][2 + e])};
      }
    }
  }

  // scores: x[0], x[1] of token r and queries 2q, 2q+1; x[2], x[3] of token r + 8.
  template <class Keys>
  DEV void scores(float (&x)[4], Keys keys, int tokens, const u32 (&high)[D / 8], const u32 (&low)[D / 8], int r, int q) {
    float c[4] = {0, 0, 0, 0};
    Quad32 k[2][D / 32];
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int s = 0; s < D / 32; s++) k[h][s] = keys(r + 8 * h, 32 * s + 8 * q);
#pragma unroll
    for (int s = 0; s < D / 32; s++) {
      mmaHalf(c, k[0][s].x, k[1][s].x, k[0][s].y, k[1][s].y, high[4 * s], high[4 * s + 1]);
      mmaHalf(c, k[0][s].z, k[1][s].z, k[0][s].w, k[1][s].w, high[4 * s + 2], high[4 * s + 3]);
      mmaHalf(c, k[0][s].x, k[1][s].x, k[0][s].y, k[1][s].y, low[4 * s], low[4 * s + 1]);
      mmaHalf(c, k[0][s].z, k[1][s].z, k[0][s].w, k[1][s].w, low[4 * s + 2], low[4 * s + 3]);
    }
    // finite where unseen: a block of unseen tokens must not make NaN of -inf - -inf
#pragma unroll
    for (int e = 0; e < 4; e++) x[e] = r + 8 * (e >> 1) < tokens ? c[e] : -1e30f;
  }

  // weigh adds the weighted values: rows of the operand are channels, so that
  // pairs of tokens are put side by side on the way.
  template <class Values>
  DEV void weigh(Sums& s, Values values, u32 b0, u32 b1, int r, int q) {
#pragma unroll
    for (int half = 0; half < D / 64; half++) {
      Quad32 v[4];
#pragma unroll
      for (int k = 0; k < 4; k++) v[k] = values(2 * q + (k & 1) + 8 * (k >> 1), 64 * half + 8 * r);
      const u32 a[4][4] = {{v[0].x, v[0].y, v[0].z, v[0].w}, {v[1].x, v[1].y, v[1].z, v[1].w}, {v[2].x, v[2].y, v[2].z, v[2].w}, {v[3].x, v[3].y, v[3].z, v[3].w}};
#pragma unroll
      for (int i = 0; i < 4; i++)
        mmaHalf(s.value[4 * half + i], permute<0x5410>(a[0][i], a[1][i]), permute<0x7632>(a[0][i], a[1][i]), permute<0x5410>(a[2][i], a[3][i]),
                permute<0x7632>(a[2][i], a[3][i]), b0, b1);
    }
  }
};
