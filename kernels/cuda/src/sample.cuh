// Drawing a token from a row of logits, as package sample does on the host: the
// order of tokens, what min-p, top-k and top-p leave, and which token a random number
// means are the same. Sums are of integers, so that they have one value.
#pragma once
#include "layer.cuh"

// How a row's token is drawn.
struct DrawRow {
  double u;           // the random number of [0, 1)
  float scale;        // 1 / temperature
  float topP, minP;   // topP 1: all; minP 0: all
  int topK;           // 0: all
  int draws;          // 0: the row keeps its most likely token
  int pad;
};

struct DrawParams {
  const float* x;  // [row][n]
  int* out;        // [row]: in, the most likely token; out, the one drawn
  const DrawRow* rows;
  int n, pad;
};

// A block a row. Weights are e^((logit - largest)·scale) in units of 2^-44.
struct Draw {
  static constexpr int kBins = 2048, kWarps = kRowThreads / 32;

  struct Shared {
    u64 sums[kBins];
    u32 counts[kBins];
    u64 warps[2][kWarps];
    u64 total[2];
    u64 above;
    u32 countAbove, bin;
    int token;
  };
  // A place in the order of falling logits: the index-th of those with a key.
  struct Place {
    u32 key, index, count;  // count: of greater keys
    u64 above, each;        // above: the weights of greater keys; each: of one with this key
    DEV u64 through(const Place& p) { return p.above + (p.index + 1) * p.each; }
  };
  static_assert(sizeof(Shared) < 48 << 10, "more shared memory than any GPU gives");

  const float* x;
  int n;
  float most, scale;
  Shared* m;

  // The weight of a logit; 0 of what is minus infinity or no number.
  DEV float weight(const Draw& d, float l) {
    if (l == d.most) return 1;
    return l < d.most ? exp2Fast(mulRound(mulRound(subRound(l, d.most), d.scale), 1.44269504f)) : 0;
  }
  DEV u64 fixed(float weight) { return (u64)(weight * 17592186044416.0f); }
  DEV int binOf(float weight) { return (int)(asBits(weight) >> 18); }  // sample.binOf
  DEV u32 keyOf(float l) {
    u32 b = asBits(l + 0.0f);  // -0 is 0
    return b >> 31 ? ~b : b | 1u << 31;
  }

  // scan puts the sums of both values of all threads before this one into before, and
  // of all into m->total.
  DEV void scan(Shared* m, u64 a, u64 b, u64 (&before)[2]) {
    u64 v[2] = {a, b};
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int k = 0; k < 2; k++) {
      u64 sum = v[k];
      for (int step = 1; step < 32; step *= 2) {
        u64 other = laneShuffle(sum, (lane - step) & 31);
        if (lane >= step) sum += other;
      }
      if (lane == 31) m->warps[k][warp] = sum;
      before[k] = sum - v[k];
    }
    blockSync();
    for (int k = 0; k < 2; k++)
      for (int w = 0; w < warp; w++) before[k] += m->warps[k][w];
    if (threadIdx.x == kRowThreads - 1) m->total[0] = before[0] + a, m->total[1] = before[1] + b;
    blockSync();
  }

  // sumOf adds the weights of at least least, in bins from bin on.
  DEV u64 sumOf(const Draw& d, float least, int bin) {
    u64 sum = 0, before[2];
    for (int i = threadIdx.x; i < d.n; i += kRowThreads) {
      float w = weight(d, d.x[i]);
      if (w >= least && binOf(w) >= bin) sum += fixed(w);
    }
    scan(d.m, sum, 0, before);
    return d.m->total[0];
  }

  // descend goes down the order of falling logits to where what is passed, weights or
  // tokens, comes to be more than limit; limit is less than all there is.
  DEV Place descend(const Draw& d, bool tokens, u64 limit) {
    Shared* m = d.m;
    Place at = {0, 0, 0, 0, 0};
    constexpr int kShift[4] = {32, 21, 10, 0};
    for (int level = 1; level < 4; level++) {
      int shift = kShift[level], known = kShift[level - 1];
      u32 mask = (1u << (known - shift)) - 1;
      for (int i = threadIdx.x; i < kBins; i += kRowThreads) m->sums[i] = 0, m->counts[i] = 0;
      blockSync();
      for (int i = threadIdx.x; i < d.n; i += kRowThreads) {
        float l = d.x[i], w = weight(d, l);
        u32 key = keyOf(l);
        if (w == 0 || (level > 1 && key >> known != at.key)) continue;
        addTo(&m->sums[key >> shift & mask], fixed(w));
        addTo(&m->counts[key >> shift & mask], 1u);
      }
      blockSync();
      int hi = kBins - 1 - 2 * threadIdx.x;  // two bins a thread, from the highest on
      u64 before[2], s = m->sums[hi], c = m->counts[hi];
      scan(m, s + m->sums[hi - 1], c + m->counts[hi - 1], before);
      u64 sum = before[0] + at.above, count = before[1] + at.count;
      for (int k = 0; k < 2; k++) {
        u64 ds = m->sums[hi - k], dc = m->counts[hi - k], passed = tokens ? count : sum, here = tokens ? dc : ds;
        if (passed <= limit && limit < passed + here) m->bin = hi - k, m->above = sum, m->countAbove = (u32)count;
        sum += ds, count += dc;
      }
      blockSync();
      at.above = m->above, at.count = m->countAbove;
      at.key = (level > 1 ? at.key << (known - shift) : 0) | m->bin;
      at.each = m->sums[m->bin] / max(1u, m->counts[m->bin]);
      u32 ties = m->counts[m->bin];
      if (level == 3) at.index = min(ties - 1, (u32)(tokens ? limit - at.count : (limit - at.above) / (at.each ? at.each : 1)));
      blockSync();
    }
    return at;
  }

  // A thread's run of tokens, in order.
  DEV int from(int n) { return (int)((u64)n * threadIdx.x / kRowThreads); }
  DEV int to(int n) { return (int)((u64)n * (threadIdx.x + 1) / kRowThreads); }

  // tokenAt is the token at a place.
  DEV int tokenAt(const Draw& d, const Place& p) {
    u64 mine = 0, before[2];
    for (int i = from(d.n); i < to(d.n); i++) mine += keyOf(d.x[i]) == p.key;
    scan(d.m, mine, 0, before);
    for (int i = from(d.n); i < to(d.n); i++)
      if (keyOf(d.x[i]) == p.key && before[0]++ == p.index) d.m->token = i;
    blockSync();
    return d.m->token;
  }

  // inOrder is the token at which the weights in bins from bin on come to be more than
  // target, in the order of tokens.
  DEV int inOrder(const Draw& d, int bin, u64 target) {
    u64 mine = 0, before[2];
    for (int i = from(d.n); i < to(d.n); i++) {
      float w = weight(d, d.x[i]);
      if (binOf(w) >= bin) mine += fixed(w);
    }
    scan(d.m, mine, 0, before);
    u64 passed = before[0];
    if (passed <= target && target < passed + mine)
      for (int i = from(d.n); i < to(d.n); i++) {
        float w = weight(d, d.x[i]);
        u64 f = binOf(w) >= bin ? fixed(w) : 0;
        if (passed <= target && target < passed + f) d.m->token = i;
        passed += f;
      }
    blockSync();
    return d.m->token;
  }

  // part is u of a sum, less than it.
  DEV u64 part(double u, u64 sum) {
    u64 x = (u64)(u * (double)sum);
    return x < sum ? x : sum - 1;
  }

  DEV int draw(const Draw& d, const DrawRow& r) {
    u64 total = sumOf(d, r.minP, 0);
    bool topK = r.topK > 0 && r.topK < d.n, topP = r.topP > 0 && r.topP < 1;
    if (!topK && !topP && r.minP <= 0) return inOrder(d, 0, part(r.u, total));
    if (topK) {
      u64 possible = 0, before[2];
      for (int i = threadIdx.x; i < d.n; i += kRowThreads) possible += weight(d, d.x[i]) > 0;
      scan(d.m, possible, 0, before);
      u64 k = d.m->total[0] < (u64)r.topK ? d.m->total[0] : (u64)r.topK;
      u64 those = Place::through(descend(d, true, k - 1));
      if (those < total) total = those;
    }
    u64 kept = total;
    if (topP) {
      u64 enough = (u64)((double)r.topP * (double)total);  // at least so much
      kept = Place::through(descend(d, false, enough > 0 ? enough - 1 : 0));
      if (kept > total) kept = total;
    }
    u64 target = part(r.u, kept);
    if (!topK) {
      // The host walks through the bins above the one in which the last token kept
      // is in the order of tokens.
      int bin = binOf(weightOf(descend(d, false, kept - 1).key, d)) + 1;
      if (target < sumOf(d, r.minP, bin)) return inOrder(d, bin, target);
    }
    return tokenAt(d, descend(d, false, target));
  }

  DEV float weightOf(u32 key, const Draw& d) { return weight(d, asFloat(key >> 31 ? key & ~(1u << 31) : ~key)); }

  DEV void run(const DrawParams& p) {
    SHARED(memory);
    const DrawRow& r = p.rows[blockIdx.x];
    if (!r.draws) return;
    Draw d;
    d.x = p.x + (u64)blockIdx.x * p.n, d.n = p.n, d.scale = r.scale, d.m = (Shared*)memory;
    d.most = d.x[p.out[blockIdx.x]];
    if (!(d.most > kMinusInf)) return;  // no token is possible
    int token = draw(d, r);
    if (threadIdx.x == 0) p.out[blockIdx.x] = token;
  }
};

KERNEL(draw_token, DrawParams, kRowThreads, 1) { Draw::run(p); }
