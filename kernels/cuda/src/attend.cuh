// Decode attention over coded pages of 128 channels, and over exact ones, as one
// launch: split over tokens, merged by log-sum-exp.
//
// A warp takes a page at a time. The int8 tensor cores see K as the 16-row
// operand, rows being tokens and the 32-deep inner dimension a bit pair of eight
// words: masks alone make the operand, and the powers of four that they leave are
// kept in separate sums. Up to four query heads are packed as two halves of the
// inner dimension: the upper half belongs to another token and is multiplied by
// columns 4..7 only. So all eight columns count.
//
// A lane ends up with the scores of four consecutive tokens of two queries: one
// word of weights each, which two 8x8 transposes turn into the operand of the
// values. There the rows are channels and the columns' halves are other channels.
//
// In the comments r = lane/4 and q = lane%4, the coordinates of the operands.
#pragma once
#include "page.cuh"

static constexpr float kTiny = 1e-30f;
static constexpr float kRebase = 16;  // exponents above the reference before it moves

DEV constexpr u32 maskOf(int i) { return 0x03030303u << (2 * i); }
DEV u32 wordOf(const Quad32& v, int j) { return j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w; }

// The magic number that makes a small integer a float32 by its bits alone.
static constexpr int kMagic = 0x4b400000;  // 12582912 = 1.5·2^23
static constexpr float kMagicFloat = 12582912;
// The same for numbers that are not negative, up to 2^23.
static constexpr int kWhole = 0x4b000000;
static constexpr float kWholeFloat = 8388608;

// QueryCodes is a lane's share of the int8 queries: the operand's words, and of
// the lane's two queries the scale and what the codes' middle takes off. A set is
// the words q of four words of 16 channels; with a leading segment, whose words
// are 0 and 1 of the head, sets 0 and 1 are words 2..5 and 6, 7, and set 2 is 0, 1.
template <int K, int NQ>
struct QueryCodes {
  static constexpr int kSets = K == kLeading ? 3 : 2;
  u32 word[kSets][4];
  float scale[2];  // of a score, times log2(e), over 64
  int sum[2][2];   // [segment][query] Σ q'

  // Shared is what the block's first NQ warps make for all of them.
  struct Shared {
    u32 word[kSets][NQ][4][4];  // [set][query][q][bit pair]
    float scale[NQ];
    int sum[2][NQ];
  };

  // read gives channels 4·lane … of query warp of an item, early: the memory
  // answers in order, and the pages come behind.
  DEV Quad32 read(const AttendParams& p, const Item& it, int warp, int lane) {
    int row = it.firstQuery + warp;
    if (warp >= NQ || row >= p.group) return Quad32{0, 0, 0, 0};
    return load<Quad32>(p.q + ((u64)(it.sequence * p.heads + it.head) * p.group + row) * kDim + 4 * lane);
  }

  // code quantises a query, a warp's.
  DEV void code(Shared* m, const Quad32& x, float scale, int query, int lane) {
    float top = 0;
#pragma unroll
    for (int b = 0; b < 4; b++) top = larger(top, fabsf(asFloat(wordOf(x, b))));
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) top = larger(top, laneXor(top, mask));
    float inv = top > kTiny ? 127 / top : 0;
    u32 b[4];
#pragma unroll
    for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(asFloat(wordOf(x, k)), inv, kMagicFloat));  // its low byte is the code
    u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
    int at = lane / 4, set = at / 4, q = at % 4;
    if (K == kLeading) {
      set = at < 2 ? 2 : at < 6 ? 0 : 1;
      q = at < 2 ? at : at < 6 ? at - 2 : at - 6;
      if (lane < 16) m->word[1 + lane / 8][query][2 + lane / 4 % 2][lane % 4] = 0;  // of words that are not there
    }
    m->word[set][query][q][lane % 4] = w;
    int sum = dot4(w, 0x01010101u, 0), lead = K == kLeading && lane < 8 ? sum : 0;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      sum += laneXor(sum, mask);
      if (K == kLeading) lead += laneXor(lead, mask);
    }
    if (lane == 0) {
      m->scale[query] = top / 127 * scale * (1.0f / 64);
      m->sum[0][query] = K == kLeading ? lead : sum;
      m->sum[1][query] = sum - lead;
    }
  }

  DEV void take(QueryCodes& c, const Shared* m, int lane) {
    int r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int s = 0; s < kSets; s++) {
      Quad32 w = load<Quad32>(m->word[s][r % NQ][q]);
#pragma unroll
      for (int i = 0; i < 4; i++) c.word[s][i] = wordOf(w, i);
    }
#pragma unroll
    for (int e = 0; e < 2; e++) {
      int query = (NQ == 4 ? 2 * (q & 1) : 2 * q) + e;
      c.scale[e] = m->scale[query];
      c.sum[0][e] = m->sum[0][query], c.sum[1][e] = m->sum[1][query];
    }
  }
};

// products adds, for one pair of tokens of a lane's quad, one set of words of a
// plane to the sums by bit pair.
template <int NQ>
DEV void products(int (&c)[4], u32 mask, const Quad32& a, const Quad32& b, int pair, u32 b0, u32 b1) {
  mmaQuery(c, wordOf(a, 2 * pair) & mask, wordOf(a, 2 * pair + 1) & mask, wordOf(b, 2 * pair) & mask, wordOf(b, 2 * pair + 1) & mask, b0, b1);
}

// KeyWords is the words of a plane that a lane works on, of a quad of tokens: at
// most two sets of a low and a high half of the inner dimension.
struct KeyWords {
  Quad32 low[2], high[2];
};

// Keys computes a lane's scores: y[unit][token][query], over the query's scale.
// NQ = 4: one unit, the lane's quad is r + 8·(q/2). NQ = 8: quads r and r + 8.
template <int K, int V, bool ASYM, int NQ>
struct Keys {
  using P = Page<K, V, ASYM>;
  static constexpr int kUnits = NQ / 4;

  // words of set s of a quad in a plane of the given width: 8 tokens' words lie
  // side by side, a quad is half of them.
  DEV Quad32 words(const u8* plane, int width, int quad, int word) {
    return load<Quad32>(plane + ((quad >> 1) * (width / 16) + word) * 32 + (quad & 1) * 16);
  }

  DEV void sums(float (&y)[4][2], const u8* page, const QueryCodes<K, NQ>& c, int unit, int lane) {
    int r = lane >> 2, q = lane & 3;
    u32 keepLow = NQ == 8 || r < 4 ? ~0u : 0, keepHigh = NQ == 8 || r >= 4 ? ~0u : 0;
    int quad0 = NQ == 4 ? r : r + 8 * unit, quad1 = NQ == 4 ? r + 8 : quad0;
    int mine = NQ == 4 ? r + 8 * (q >> 1) : quad0;
    Pair32 s0 = load<Pair32>(page + P::kScale + 8 * mine);
    float scale[4] = {widenLow(s0.x), widenHigh(s0.x), widenLow(s0.y), widenHigh(s0.y)};
    float zero[4];
    if (ASYM) {
      Pair32 z = load<Pair32>(page + P::kScale + P::params + 8 * mine);
      zero[0] = widenLow(z.x), zero[1] = widenHigh(z.x), zero[2] = widenLow(z.y), zero[3] = widenHigh(z.y);
    }
    if (K == kLeading) {
      leading(y, page, c, quad0, quad1, mine, q, keepLow, keepHigh, scale, zero);
      return;
    }
    // NQ = 4: each set is one product of two quads. NQ = 8: both sets are one
    // product of one quad.
    Quad32 a0 = words(page + P::kTop, kDim, quad0, q), a1 = words(page + P::kTop, kDim, quad0, 4 + q);
    Quad32 b0 = a1, b1 = a1;
    if (NQ == 4) b0 = words(page + P::kTop, kDim, quad1, q), b1 = words(page + P::kTop, kDim, quad1, 4 + q);
    Quad32 c0 = a0, c1 = a0, d0 = a0, d1 = a0;
    if (K == kFourBits) {
      c0 = words(page + P::kLow, kDim, quad0, q), c1 = words(page + P::kLow, kDim, quad0, 4 + q);
      d0 = c1;
      if (NQ == 4) d0 = words(page + P::kLow, kDim, quad1, q), d1 = words(page + P::kLow, kDim, quad1, 4 + q);
    }
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      constexpr int kSums = K == kFourBits ? 5 : 4;
      int sum[kSums][4] = {};
      if (K == kTwoBits)
#pragma unroll
        for (int e = 0; e < 4; e++) sum[3][e] = kMagic;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (NQ == 4) {
          products<NQ>(sum[i], maskOf(i), a0, b0, pair, c.word[0][i] & keepLow, c.word[0][i] & keepHigh);
          products<NQ>(sum[i], maskOf(i), a1, b1, pair, c.word[1][i] & keepLow, c.word[1][i] & keepHigh);
        } else {
          products<NQ>(sum[i], maskOf(i), a0, b0, pair, c.word[0][i], c.word[1][i]);
        }
        if (K == kFourBits) {  // a second plane's pair weighs as much as the top plane's next
          if (NQ == 4) {
            products<NQ>(sum[i + 1 < kSums ? i + 1 : 0], maskOf(i), c0, d0, pair, c.word[0][i] & keepLow, c.word[0][i] & keepHigh);
            products<NQ>(sum[i + 1 < kSums ? i + 1 : 0], maskOf(i), c1, d1, pair, c.word[1][i] & keepLow, c.word[1][i] & keepHigh);
          } else {
            products<NQ>(sum[i + 1 < kSums ? i + 1 : 0], maskOf(i), c0, d0, pair, c.word[0][i], c.word[1][i]);
          }
        }
      }
      finish<kSums>(y, sum, pair, scale, zero, c.sum[0], K == kFourBits ? 7.5f : 1.5f, false);
    }
  }

  // finish puts a pair's sums together: 64 times the product, less 64 times the
  // middle of the levels, times the tokens' scales.
  template <int N>
  DEV void finish(float (&y)[4][2], const int (&sum)[N][4], int pair, const float (&scale)[4], const float (&zero)[4], const int (&sums)[2],
                  float middle, bool add) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int total = sum[0][e];
#pragma unroll
      for (int i = 1; i < N; i++) total = total * 4 + sum[i][e];
      int t = 2 * pair + (e >> 1), row = e & 1;
      float offset = 64 * middle * (float)sums[row], f;
      if (N == 4) {
        f = asFloat((u32)total) - (kMagicFloat + offset);
      } else {
        f = (float)total - offset;
      }
      float s = f * scale[t];
      if (ASYM) s += (zero[t] + middle * scale[t]) * (64 * (float)sums[row]);
      y[t][row] = add ? y[t][row] + s : s;
    }
  }

  DEV void leading(float (&y)[4][2], const u8* page, const QueryCodes<K, NQ>& c, int quad0, int quad1, int mine, int q, u32 keepLow, u32 keepHigh,
                   const float (&scale)[4], const float (&zero)[4]) {
    Pair32 s1 = load<Pair32>(page + P::kScale + P::perSegment + 8 * mine);
    float scale1[4] = {widenLow(s1.x), widenHigh(s1.x), widenLow(s1.y), widenHigh(s1.y)};
    float zero1[4];
    if (ASYM) {
      Pair32 z = load<Pair32>(page + P::kScale + P::perSegment + P::params + 8 * mine);
      zero1[0] = widenLow(z.x), zero1[1] = widenHigh(z.x), zero1[2] = widenLow(z.y), zero1[3] = widenHigh(z.y);
    }
    int odd = q & 1;  // lanes 2 and 3 read what they multiply by zero
    const u8* rest = page + P::kTop1;
    Quad32 a0 = words(rest, kDim - kLead, quad0, q), a1 = words(rest, kDim - kLead, quad0, 4 + odd);
    Quad32 b0 = a1, b1 = a1;
    Quad32 t0 = words(page + P::kTop, kLead, quad0, odd), l0 = words(page + P::kLow, kLead, quad0, odd);
    Quad32 t1 = t0, l1 = l0;
    if (NQ == 4) {
      b0 = words(rest, kDim - kLead, quad1, q), b1 = words(rest, kDim - kLead, quad1, 4 + odd);
      t1 = words(page + P::kTop, kLead, quad1, odd), l1 = words(page + P::kLow, kLead, quad1, odd);
    }
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      int sum[4][4] = {};
#pragma unroll
      for (int e = 0; e < 4; e++) sum[3][e] = kMagic;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (NQ == 4) {
          products<NQ>(sum[i], maskOf(i), a0, b0, pair, c.word[0][i] & keepLow, c.word[0][i] & keepHigh);
          products<NQ>(sum[i], maskOf(i), a1, b1, pair, c.word[1][i] & keepLow, c.word[1][i] & keepHigh);
        } else {
          products<NQ>(sum[i], maskOf(i), a0, b0, pair, c.word[0][i], c.word[1][i]);
        }
      }
      finish<4>(y, sum, pair, scale1, zero1, c.sum[1], 1.5f, false);
      int low[5][4] = {};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        u32 b0w = NQ == 4 ? c.word[2][i] & keepLow : c.word[2][i], b1w = NQ == 4 ? c.word[2][i] & keepHigh : 0;
        products<NQ>(low[i], maskOf(i), t0, t1, pair, b0w, b1w);
        products<NQ>(low[i + 1], maskOf(i), l0, l1, pair, b0w, b1w);
      }
      finish<5>(y, low, pair, scale, zero, c.sum[0], 7.5f, true);
    }
  }
};

// Running is a lane's part of its warp's state. Sums are of the lane's own
// tokens, values of its own channels, both of its two queries.
template <int NQ>
struct Running {
  static constexpr int kTiles = NQ;  // 4 bit pairs, twice for eight queries
  float m[2], sum[2], middle[2], centre[2];
  float value[kTiles][4];
};

template <int K, int V, bool ASYM, int NQ>
struct Decode {
  using P = Page<K, V, ASYM>;
  static constexpr int kUnits = NQ / 4;
  static constexpr int kChunks = P::bytes / 16;

  // fetch starts a page's copy. The words of V are read four quads at a time, in
  // which the rows of 128 bytes would meet in the same banks: they are turned
  // against each other on arrival.
  DEV void fetch(u8* stage, const u8* page, int lane) {
#pragma unroll
    for (int i = 0; i < (kChunks + 31) / 32; i++) {
      int at = lane + 32 * i, to = at;
      if (at >= P::vTop / 16) {
        int v = at - P::vTop / 16;
        to = P::vTop / 16 + (v ^ (v >> 3 & 6));
      }
      if (32 * i + 32 <= kChunks || at < kChunks) copy16(stage + 16 * to, page + 16 * at);
    }
  }

  DEV Quad32 valueWords(const u8* plane, int quad, int r, int q) { return load<Quad32>(plane + quad * 128 + ((r ^ (2 * q)) * 16)); }

  DEV void page(Running<NQ>& s, const QueryCodes<K, NQ>& c, const u8* stage, int lane) {
    int r = lane >> 2, q = lane & 3;
    float x[kUnits][4][2];
    float top = kMinusInf;
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      Keys<K, V, ASYM, NQ>::sums(x[u], stage, c, u, lane);
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          x[u][t][e] *= c.scale[e];
          top = larger(top, x[u][t][e] - s.m[e]);
        }
    }
    if (laneAny(top > kRebase)) rebase(s, x);
    // weights, folded with the values' scales
    float p[kUnits][4][2], largest[2] = {0, 0};
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      int mine = NQ == 4 ? r + 8 * (q >> 1) : r + 8 * u;
      Pair32 s0 = load<Pair32>(stage + P::vScale + 8 * mine);
      float scale[4] = {widenLow(s0.x), widenHigh(s0.x), widenLow(s0.y), widenHigh(s0.y)};
      float centre[4];
      if (ASYM) {
        Pair32 z = load<Pair32>(stage + P::vScale + P::params + 8 * mine);
        constexpr float kMiddle = V == kFourBits ? 7.5f : 1.5f;
        centre[0] = widenLow(z.x) + kMiddle * scale[0], centre[1] = widenHigh(z.x) + kMiddle * scale[1];
        centre[2] = widenLow(z.y) + kMiddle * scale[2], centre[3] = widenHigh(z.y) + kMiddle * scale[3];
      }
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float w = exp2Fast(x[u][t][e] - s.m[e]);
          s.sum[e] += w;
          if (ASYM) s.centre[e] += w * centre[t];
          p[u][t][e] = w * scale[t];
          largest[e] = larger(p[u][t][e], largest[e]);
        }
    }
    float step[2], inv[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      largest[e] = larger(largest[e], laneXor(largest[e], 4));
      largest[e] = larger(largest[e], laneXor(largest[e], 8));
      largest[e] = larger(largest[e], laneXor(largest[e], 16));
      if (NQ == 4) largest[e] = larger(largest[e], laneXor(largest[e], 2));
      inv[e] = largest[e] > kTiny ? 255 * reciprocal(largest[e]) : 0;
      step[e] = largest[e] > kTiny ? largest[e] * (1.0f / 255) : 0;
    }
    u32 word[kUnits][2];
#pragma unroll
    for (int u = 0; u < kUnits; u++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        u32 b[4];
#pragma unroll
        for (int t = 0; t < 4; t++) b[t] = asBits(fusedMulAdd(p[u][t][e], inv[e], kWholeFloat));
        word[u][e] = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
        s.middle[e] += step[e] * (float)sum4(word[u][e]);
      }
    values(s, word, step, stage, lane);
  }

  // rebase moves the reference exponents to the largest score seen.
  DEV void rebase(Running<NQ>& s, const float (&x)[kUnits][4][2]) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float top = s.m[e];
#pragma unroll
      for (int u = 0; u < kUnits; u++)
#pragma unroll
        for (int t = 0; t < 4; t++) top = larger(top, x[u][t][e]);
      top = larger(top, laneXor(top, 4));
      top = larger(top, laneXor(top, 8));
      top = larger(top, laneXor(top, 16));
      if (NQ == 4) top = larger(top, laneXor(top, 2));
      float shrink = exp2Fast(s.m[e] - top);
      s.m[e] = top;
      s.sum[e] *= shrink, s.middle[e] *= shrink, s.centre[e] *= shrink;
#pragma unroll
      for (int i = 0; i < Running<NQ>::kTiles; i++) s.value[i][e] *= shrink, s.value[i][2 + e] *= shrink;
    }
  }

  // values multiplies the weights' codes with the values' and adds them up.
  DEV void values(Running<NQ>& s, const u32 (&word)[kUnits][2], const float (&step)[2], const u8* stage, int lane) {
    int r = lane >> 2, q = lane & 3;
    u32 w[kUnits][2];  // of query r%NQ: quads 2q and 2q+1 of its half
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      u32 low = transpose8(permute<0x5410>(word[u][0], word[u][1])), high = transpose8(permute<0x7632>(word[u][0], word[u][1]));
      w[u][0] = permute<0x5410>(low, high), w[u][1] = permute<0x7632>(low, high);
    }
    int sum[Running<NQ>::kTiles][4] = {};
#pragma unroll
    for (int plane = 0; plane < (V == kFourBits ? 2 : 1); plane++) {
      const u8* v = stage + P::vTop + plane * P::plane;
      if (plane == 1)
#pragma unroll
        for (int i = 0; i < Running<NQ>::kTiles; i++)
#pragma unroll
          for (int e = 0; e < 4; e++) sum[i][e] *= 4;
      if (NQ == 4) {
        u32 other0 = laneXor(w[0][0], 16), other1 = laneXor(w[0][1], 16);
        bool lower = r < 4;
        u32 of[4] = {lower ? w[0][0] : other0, lower ? w[0][1] : other1, lower ? other0 : w[0][0], lower ? other1 : w[0][1]};
#pragma unroll
        for (int k = 0; k < 4; k++) {
          Quad32 a = valueWords(v, 8 * (k >> 1) + 2 * q + (k & 1), r, q);
          u32 b0 = lower ? of[k] : 0, b1 = lower ? 0 : of[k];
#pragma unroll
          for (int i = 0; i < 4; i++) add(sum[i], k == 0, a.x & maskOf(i), a.y & maskOf(i), a.z & maskOf(i), a.w & maskOf(i), b0, b1);
        }
      } else {
#pragma unroll
        for (int u = 0; u < kUnits; u++) {
          Quad32 a = valueWords(v, 8 * u + 2 * q, r, q), b = valueWords(v, 8 * u + 2 * q + 1, r, q);
#pragma unroll
          for (int i = 0; i < 4; i++) {
            add(sum[i], u == 0, a.x & maskOf(i), a.y & maskOf(i), b.x & maskOf(i), b.y & maskOf(i), w[u][0], w[u][1]);
            add(sum[NQ == 8 ? 4 + i : i], u == 0, a.z & maskOf(i), a.w & maskOf(i), b.z & maskOf(i), b.w & maskOf(i), w[u][0], w[u][1]);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < Running<NQ>::kTiles; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = fusedMulAdd(step[e & 1], V == kTwoBits ? asFloat((u32)sum[i][e]) - kWholeFloat : (float)sum[i][e], s.value[i][e]);
  }

  // add multiplies a tile's codes; the sums of 2-bit ones begin as the bits of a
  // float, which spares their conversion.
  DEV void add(int (&sum)[4], bool first, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (first && V == kTwoBits) {
      mmaWeightFrom(sum, a0, a1, a2, a3, b0, b1, kWhole);
    } else {
      mmaWeight(sum, a0, a1, a2, a3, b0, b1);
    }
  }

  // store puts the warp's state and values where the block merges them.
  DEV void store(Running<NQ>& s, State* states, float* out, int lane) {
    int r = lane >> 2, q = lane & 3;
    constexpr float kMiddle = V == kFourBits ? 7.5f : 1.5f;
    warpSync();  // out lies where the last pages did
#pragma unroll
    for (int e = 0; e < 2; e++) {
#pragma unroll
      for (int mask = NQ == 4 ? 2 : 4; mask < 32; mask *= 2) {
        s.sum[e] += laneXor(s.sum[e], mask);
        s.middle[e] += laneXor(s.middle[e], mask);
        if (ASYM) s.centre[e] += laneXor(s.centre[e], mask);
      }
      int query = (NQ == 4 ? 2 * (q & 1) : 2 * q) + e;
      if (r == 0 && (NQ == 8 || q < 2)) states[query] = State{s.m[e], s.sum[e]};
      float off = ASYM ? s.centre[e] - kMiddle * s.middle[e] : -kMiddle * s.middle[e];
      float* to = out + query * kDim + 32 * (r >> 1) + 4 * (r & 1) + (NQ == 4 ? 2 * (q >> 1) : 0);
#pragma unroll
      for (int i = 0; i < Running<NQ>::kTiles; i++) {
        float unit = 1.0f / (1 << 2 * (i & 3));
        struct alignas(8) {
          float x, y;
        } pair = {s.value[i][e] * unit + off, s.value[i][2 + e] * unit + off};
        *(decltype(pair)*)(to + 8 * (i & 3) + 2 * (i >> 2)) = pair;
      }
    }
  }

  // Pages is a warp's share of an item's pages: warp, warp + warps, …
  template <int STAGES>
  struct Pages {
    const u64* table;
    u64 offset, next;  // next: a lane's, the addresses of the next 32 pages
    int n, warps;
    u8* ring;

    DEV Pages of(const AttendParams& p, const Item& it, u8* ring, int warp, int warps) {
      Pages s;
      s.table = p.coded + (u64)it.sequence * p.pages + it.lo + warp;
      s.offset = p.codedLayer + (u64)it.head * P::bytes;
      s.n = warp >= 0 && it.hi - it.lo > warp ? (it.hi - it.lo - warp + warps - 1) / warps : 0;  // warp < 0: an exact one
      s.warps = warps;
      s.ring = ring;
      s.next = 0;
      return s;
    }

    // start begins page k's copy, or an empty group behind the last.
    DEV void start(Pages& s, int k, int lane) {
      if (k % 32 == 0) {
        int at = k + lane;
        s.next = at < s.n ? s.table[at * s.warps] : 0;
      }
      if (k < s.n) fetch(s.ring + k % STAGES * P::bytes, (const u8*)(laneShuffle(s.next, k % 32) + s.offset), lane);
      copyCommit();
    }
  };

  // run goes through a warp's pages, of which the first STAGES - 1 are on their way.
  template <int STAGES>
  DEV void run(Pages<STAGES>& pages, const typename QueryCodes<K, NQ>::Shared* queries, State* states, float* out, int lane) {
    QueryCodes<K, NQ> c;
    QueryCodes<K, NQ>::take(c, queries, lane);
    Running<NQ> s;
#pragma unroll
    for (int e = 0; e < 2; e++) s.m[e] = kMinusInf, s.sum[e] = s.middle[e] = s.centre[e] = 0;
#pragma unroll
    for (int i = 0; i < Running<NQ>::kTiles; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
#pragma unroll 1
    for (int k = 0; k < pages.n; k++) {
      warpSync();  // all lanes are done with the stage that comes next
      Pages<STAGES>::start(pages, k + STAGES - 1, lane);
      copyWait<STAGES - 1>();
      warpSync();
      page(s, c, pages.ring + k % STAGES * P::bytes, lane);
    }
    copyWait<0>();
    store(s, states, out, lane);
  }
};
