// Decode's scores: int8 queries by the codes of K, on the tensor cores.
//
// They see K as the 16-row operand, rows being tokens and the 32-deep inner
// dimension a bit pair of eight words: masks alone make the operand, and the powers
// of four that they leave are kept in separate sums. Up to four query heads are
// packed as two halves of the inner dimension: the upper half belongs to another
// token and is multiplied by columns 4..7 only. So all eight columns count.
//
// In the comments r = lane/4 and q = lane%4, the coordinates of the operands.
#pragma once
#include "page.cuh"

static constexpr float kTiny = 1e-30f;

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
// the words q of four words of 16 channels. Where so many channels lead by the kernel,
// their words are the last set and those of the rest the sets before; words that are
// not there are zero.
template <int D, int K, int NQ>
struct QueryCodes {
  static constexpr int kWords = D / 16, kLeadWords = kLeads<K> ? K / 16 : 0;
  static constexpr int kRest = kWords - kLeadWords, kRestSets = (kRest + 3) / 4;
  static constexpr int kSets = kRestSets + (kLeads<K> ? 1 : 0);
  static_assert(D <= 128 && kLeadWords <= 4, "a lane reads four channels, a set is four words");
  u32 word[kSets][4];
  float scale[2];  // of a score, times log2(e), over 64
  int sum[2][2];   // [segment][query] Σ q'; as planned: 4·Σ q' and that of leading channels

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
    if (warp >= NQ || row >= p.group || 4 * lane >= D) return Quad32{0, 0, 0, 0};
    return load<Quad32>(p.q + ((u64)(it.sequence * p.heads + it.head) * p.group + row) * D + 4 * lane);
  }

  // code quantises a query, a warp's. planned is the words of channels that lead as
  // planned: then sums are of codes of four bits, in quarters of the
  // scale, but for those of a token that leads with all.
  DEV void code(Shared* m, const Quad32& x, float scale, int planned, int query, int lane) {
    float top = 0;
#pragma unroll
    for (int b = 0; b < 4; b++) top = larger(top, fabsf(asFloat(wordOf(x, b))));
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) top = larger(top, laneXor(top, mask));
    float inv = top > kTiny ? 127 * reciprocal(top) : 0;
    u32 b[4];
#pragma unroll
    for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(asFloat(wordOf(x, k)), inv, kMagicFloat));  // its low byte is the code
    u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
    if (kSets * 4 > kWords) {
      for (int i = lane; i < kSets * 16; i += 32) m->word[i / 16][query][i / 4 % 4][i % 4] = 0;
      warpSync();
    }
    int at = lane / 4, rest = at - kLeadWords;
    if (at < kWords) m->word[rest < 0 ? kSets - 1 : rest / 4][query][rest < 0 ? at : rest % 4][lane % 4] = w;
    int sum = dot4(w, 0x01010101u, 0), lead = at < (K == kPlan ? planned : kLeadWords) ? sum : 0;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      sum += laneXor(sum, mask);
      if (kLeads<K> || K == kPlan) lead += laneXor(lead, mask);
    }
    if (lane == 0) {
      m->scale[query] = top * (scale * (K == kPlan && planned < kWords ? 1.0f / (127 * 256) : 1.0f / (127 * 64)));
      m->sum[0][query] = kLeads<K> ? lead : K == kPlan ? 4 * sum + lead : sum;
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

// Second is where a page's second planes are: of K and V, and how many rows each has
// where those are counted at run time.
struct Second {
  const u8 *k, *v;
  int rows[2];
  bool refinedK, refinedV;
};

// KeyWords is a lane's words of a plane of WORDS words a token, for its quad or
// quads of tokens, as the products take them: with four queries a set of two
// quads, with eight two sets of one.
template <int NQ, int WORDS>
struct KeyWords {
  static constexpr int kSets = (WORDS + 3) / 4, kProducts = NQ == 4 ? kSets : (kSets + 1) / 2;
  Quad32 a[kProducts][2];

  // word is set s's word of a lane: 8 tokens' words lie side by side, a quad is
  // half of them. A word that is not there is another, which is multiplied by zero.
  DEV Quad32 word(const u8* plane, int quad, int s, int q) {
    int w = 4 * s + 4 > WORDS ? min(4 * s + q, WORDS - 1) : 4 * s + q;
    return load<Quad32>(plane + ((quad >> 1) * WORDS + w) * 32 + (quad & 1) * 16);
  }

  // planned is the same where lead words of each token stand before the others of
  // all tokens, or, without the others, where no more are there: they are zero then.
  DEV Quad32 planned(const u8* plane, int quad, int w, int lead, bool others) {
    int at = (quad >> 1) * lead + w;
    if (w >= lead) {
      if (!others) return Quad32{0, 0, 0, 0};
      at = 8 * lead + (quad >> 1) * (WORDS - lead) + w - lead;
    }
    return load<Quad32>(plane + at * 32 + (quad & 1) * 16);
  }

  template <typename AT>
  DEV void readWith(KeyWords& k, int quad0, int quad1, const AT& at) {
#pragma unroll
    for (int n = 0; n < kProducts; n++) {
      k.a[n][0] = at(quad0, NQ == 4 ? n : 2 * n);
      k.a[n][1] = k.a[n][0];
      if (NQ == 4) k.a[n][1] = at(quad1, n);
      if (NQ == 8 && 2 * n + 1 < kSets) k.a[n][1] = at(quad0, 2 * n + 1);
    }
  }

  DEV void read(KeyWords& k, const u8* plane, int quad0, int quad1, int q) {
    readWith(k, quad0, quad1, [&](int quad, int s) { return word(plane, quad, s, q); });
  }

  DEV void readPlanned(KeyWords& k, const u8* plane, int quad0, int quad1, int q, int lead, bool others) {
    readWith(k, quad0, quad1, [&](int quad, int s) { return planned(plane, quad, 4 * s + q, lead, others); });
  }

  // some is the same of a plane that a set of tokens has, in rows as they are stored:
  // others' codes are zero.
  DEV Quad32 some(const u8* plane, int rows, u64 set, int quad, int w) {
    int row = below(set, 4 * quad);
    u32 four = (u32)(set >> (4 * quad)) & 15, words[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
      int at = min(row, rows - 1);
      words[t] = four >> t & 1 ? load<u32>(plane + ((at >> 3) * WORDS + w) * 32 + (at & 7) * 4) : 0;
      row += four >> t & 1;
    }
    return Quad32{words[0], words[1], words[2], words[3]};
  }

  DEV void readSome(KeyWords& k, const u8* plane, int rows, u64 set, int quad0, int quad1, int q) {
    readWith(k, quad0, quad1, [&](int quad, int s) { return some(plane, rows, set, quad, 4 * s + q); });
  }

  // multiply adds, for one pair of tokens of a lane's quad, bit pair i, so many words
  // of a token: the others are zero. Fresh sums begin at from.
  template <int SETS>
  DEV void multiply(int (&c)[4], const KeyWords& k, const u32 (&words)[SETS][4], int first, int i, int pair, int r, int some, bool fresh, int from) {
    u32 mask = maskOf(i), keepLow = r < 4 ? ~0u : 0, keepHigh = ~keepLow;
    if (fresh)
#pragma unroll
      for (int e = 0; e < 4; e++) c[e] = from;
#pragma unroll
    for (int n = 0; n < kProducts; n++) {
      if ((NQ == 4 ? 4 : 8) * n >= some) break;
      u32 a0 = wordOf(k.a[n][0], 2 * pair) & mask, a1 = wordOf(k.a[n][0], 2 * pair + 1) & mask;
      u32 a2 = wordOf(k.a[n][1], 2 * pair) & mask, a3 = wordOf(k.a[n][1], 2 * pair + 1) & mask;
      if (NQ == 4) {
        u32 b = words[first + n][i];
        mmaQuery(c, a0, a1, a2, a3, b & keepLow, b & keepHigh);
      } else if (2 * n + 1 < kSets) {
        mmaQuery(c, a0, a1, a2, a3, words[first + 2 * n][i], words[2 * n + 1 < kSets ? first + 2 * n + 1 : 0][i]);
      } else {
        mmaQueryHalf(c, a0, a1, words[first + 2 * n][i]);
      }
    }
  }
};

// Keys computes a lane's scores: y[token][query] of a unit, over the query's scale.
// NQ = 4: one unit, the lane's quad is r + 8·(q/2). NQ = 8: quads r and r + 8.
template <int D, int K, int V, bool ASYM, int NQ>
struct Keys {
  using P = Page<D, K, V, ASYM>;
  using Q = QueryCodes<D, K, NQ>;

  // Levels is what the codes of a lane's four tokens stand for.
  struct Levels {
    float scale[4], zero[4], middle[4];
  };

  DEV void levels(Levels& l, const u8* params, int quad, float middle) {
    Pair32 s = load<Pair32>(params + 8 * quad);
    l.scale[0] = widenLow(s.x), l.scale[1] = widenHigh(s.x), l.scale[2] = widenLow(s.y), l.scale[3] = widenHigh(s.y);
    if (ASYM) {
      Pair32 z = load<Pair32>(params + P::params + 8 * quad);
      l.zero[0] = widenLow(z.x), l.zero[1] = widenHigh(z.x), l.zero[2] = widenLow(z.y), l.zero[3] = widenHigh(z.y);
    }
#pragma unroll
    for (int t = 0; t < 4; t++) l.middle[t] = middle;
  }

  DEV void sums(float (&y)[4][2], const u8* page, const Second& second, const Q& c, int unit, int lane) {
    int r = lane >> 2, q = lane & 3;
    int quad0 = NQ == 4 ? r : r + 8 * unit, quad1 = NQ == 4 ? r + 8 : quad0;
    int mine = NQ == 4 ? r + 8 * (q >> 1) : quad0;
    Levels l;
    levels(l, page + P::kScale, mine, K == kTwoBits || K == kPlan ? 1.5f : 7.5f);
    u64 set = K == kSomeTokens ? load<u64>(page + P::kSet) : 0;
    if (K == kSomeTokens)
#pragma unroll
      for (int t = 0; t < 4; t++) some(l.scale[t], l.zero[t], l.middle[t], set, 4 * mine + t, second.refinedK);
    constexpr bool kBoth = K != kTwoBits;
    if (kLeads<K>) {
      Levels rest;
      levels(rest, page + P::kScale + P::perSegment, mine, 1.5f);
      plane<false, Q::kRest>(y, page + P::kTop1, second, 0, c, 0, quad0, quad1, rest, c.sum[1], lane, false);
      plane<true, kLeads<K> ? Q::kLeadWords : 1>(y, page + P::kTop, second, 0, c, Q::kSets - 1, quad0, quad1, l, c.sum[0], lane, true);
    } else {
      plane<kBoth, Q::kWords>(y, page + P::kTop, second, set, c, 0, quad0, quad1, l, c.sum[0], lane, false);
    }
  }

  // plane does one segment; set is the tokens that have its second plane, if some do. A
  // second plane's bit pair weighs as much as the top plane's next.
  template <bool BOTH, int WORDS>
  DEV void plane(float (&y)[4][2], const u8* top, const Second& second, u64 set, const Q& c, int first, int quad0, int quad1, const Levels& l, const int (&sums)[2],
                 int lane, bool add) {
    using Words = KeyWords<NQ, WORDS>;
    int r = lane >> 2, q = lane & 3;
    Words a, b;
    int lower = WORDS;  // words of a token that there are of the second plane
    if (K == kPlan) {
      lower = leadWords<D>(second.rows[0]);
      Words::readPlanned(a, top, quad0, quad1, q, lower, true);
      Words::readPlanned(b, second.k, quad0, quad1, q, lower, false);
    } else {
      Words::read(a, top, quad0, quad1, q);
      if (K == kSomeTokens && !set) lower = 0;  // of many pages none
      if (K == kSomeTokens && set) Words::readSome(b, second.k, second.rows[0], set, quad0, quad1, q);
      if (K != kSomeTokens && BOTH) Words::read(b, second.k, quad0, quad1, q);
    }
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      constexpr int kSums = BOTH ? 5 : 4;
      int sum[kSums][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        Words::multiply(sum[i], a, c.word, first, i, pair, r, WORDS, !BOTH || i == 0, !BOTH && i == 3 ? kMagic : 0);
        if (BOTH) Words::multiply(sum[i + 1 < kSums ? i + 1 : 0], b, c.word, first, i, pair, r, lower, true, 0);
      }
      finish<kSums>(y, sum, pair, l, sums, add);
    }
  }

  // finish puts a pair's sums together: 64 times the product, less 64 times the
  // middle of the levels, times the tokens' scales.
  template <int N>
  DEV void finish(float (&y)[4][2], const int (&sum)[N][4], int pair, const Levels& l, const int (&sums)[2], bool add) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int total = sum[0][e];
#pragma unroll
      for (int i = 1; i < N; i++) total = total * 4 + sum[i][e];
      int t = 2 * pair + (e >> 1), row = e & 1;
      float offset = 64 * l.middle[t] * (float)sums[row], f;
      if (N == 4) {
        f = asFloat((u32)total) - (kMagicFloat + offset);
      } else {
        f = (float)total - offset;
      }
      float s = f * l.scale[t];
      if (ASYM) s += (l.zero[t] + l.middle[t] * l.scale[t]) * (64 * (float)sums[row]);
      y[t][row] = add ? y[t][row] + s : s;
    }
  }
};
