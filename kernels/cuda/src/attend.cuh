// Decode attention over coded pages, and over exact ones, as one launch: split
// over tokens, merged by log-sum-exp. A warp takes a page at a time.
//
// A lane ends up with the scores of four consecutive tokens of two queries: one
// word of weights each, which two 8x8 transposes turn into the operand of the
// values. There the rows are channels. With 128 channels the columns' halves are
// other channels, with 64 the halves of the inner dimension are other tokens.
//
// In the comments r = lane/4 and q = lane%4, the coordinates of the operands.
#pragma once
#include "query.cuh"

// How far from the reference exponent the largest score of a query may be: above
// it, and of the first page below it, before the reference moves.
static constexpr float kRebase = 40;

// A warp's ring of pages: one is on its way while another is worked on. More only
// stand in each other's way.
static constexpr int kStages = 2;

// Running is a lane's part of its warp's state. Sums are of the lane's own
// tokens, values of its own channels, both of its two queries.
template <int D, int NQ>
struct Running {
  static constexpr int kTiles = NQ == 4 ? 4 : D / 16;  // 4 bit pairs, twice for eight queries of 128 channels
  float m[2], sum[2], middle[2], centre[2];
  float value[kTiles][4];
};

// ValueWords is a lane's words of a quad of tokens of V: the r-th of eight equal
// runs, from a plane whose pieces were turned on arrival. quad/2 % 4 is q.
template <int D>
struct ValueWords {
  u32 w[D / 32];

  DEV void read(ValueWords& v, const u8* plane, int quad, int r, int q) {
    static_assert(D == 64 || D == 128, "a run is 8 or 16 bytes");
    if (D == 128) {
      Quad32 x = load<Quad32>(plane + quad * 128 + ((r ^ (2 * q)) * 16));
#pragma unroll
      for (int j = 0; j < D / 32; j++) v.w[j] = wordOf(x, j);
    } else {
      Pair32 x = load<Pair32>(plane + ((quad * 4 + (r >> 1)) ^ (2 * q)) * 16 + (r & 1) * 8);
      v.w[0] = x.x, v.w[1] = x.y;
    }
  }
  // readSome is read where a set of tokens has the plane, in rows as they are stored:
  // others' codes are zero.
  DEV void readSome(ValueWords& v, const u8* low, int rows, u64 set, int quad, int r) {
    int row = below(set, 4 * quad), last = rows / 4 - 1;
    u32 four = (u32)(set >> (4 * quad)) & 15;
    u32 ones = (four & 1) | (four & 2) << 3 | (four & 4) << 6 | (four & 8) << 9;
    u32 select = ones * 0x1110 + row % 4 * 0x1111, mask = spreadBits(four);  // a token's row is the count of those before it
    const u8 *from = low + min(row / 4, last) * D + r * (D / 8), *then = low + min(row / 4 + 1, last) * D + r * (D / 8);
    if (D == 128) {
      Quad32 a = load<Quad32>(from), b = load<Quad32>(then);
#pragma unroll
      for (int j = 0; j < D / 32; j++) v.w[j] = permuteBy(wordOf(a, j), wordOf(b, j), select) & mask;
    } else {
      Pair32 a = load<Pair32>(from), b = load<Pair32>(then);
      v.w[0] = permuteBy(a.x, b.x, select) & mask, v.w[1] = permuteBy(a.y, b.y, select) & mask;
    }
  }
  // channel is the channel of a run's first word, bit pair 0. Bit pair i is 8·i
  // after it.
  DEV int channel(int r) { return r / (256 / D) * 32 + r % (256 / D) * (D / 32); }
};

// Runs is the order in which values are merged: as a warp's registers have them, 32
// pairs of channels after another, so that no two lanes meet in a bank.
template <int D, int NQ>
struct Runs {
  static constexpr int kTiles = Running<D, NQ>::kTiles, kSides = NQ == 4 && D == 64 ? 1 : 2;
  static constexpr int kRuns = kSides * kTiles;  // run side·kTiles + tile
  static_assert(kRuns * 64 == NQ * D, "every value has its place");

  // query and channel are those of a lane's pair in a run. With four queries the
  // upper half of the lanes has other channels, or with 64 channels other queries.
  DEV int query(int run, int lane) {
    int q = lane & 3;
    return NQ == 8 ? 2 * q + run / kTiles : D == 64 ? 2 * (q & 1) + (q >> 1) : 2 * (q & 1) + run / kTiles;
  }
  DEV int channel(int run, int lane) {
    int i = run % kTiles;
    return ValueWords<D>::channel(lane >> 2) + 8 * (i & 3) + 2 * (NQ == 8 ? i >> 2 : D == 64 ? 0 : (lane & 3) >> 1);
  }
  // place is where an even channel of a query is.
  DEV int place(int query, int channel) {
    constexpr int kPart = 256 / D;  // runs of channels in 32
    int r = (channel >> 5) * kPart + channel % 8 / (D / 32), odd = D == 128 ? channel >> 1 & 1 : 0;
    int q = NQ == 8 ? query >> 1 : (query >> 1) + 2 * (D == 64 ? query & 1 : odd);
    int tile = (channel >> 3 & 3) + (NQ == 8 ? 4 * odd : 0), side = kSides == 2 ? query & 1 : 0;
    return ((side * kTiles + tile) * 32 + 4 * r + q) * 2;
  }
};

template <int D, int K, int V, bool ASYM, int NQ>
struct Decode {
  using P = Page<D, K, V, ASYM>;
  static constexpr int kUnits = NQ / 4;
  static constexpr bool kBoth = V != kTwoBits;  // planes

  // Layout is how many bytes pages and their shared memory take.
  struct Layout {
    int low, rows;  // bytes of the second planes whose rows are counted at run time, of K and of both
    int refined;
    DEV Layout of(const AttendParams& p) {
      Layout l = {0, 0, p.refined};
      if (P::kSome) l.low = rowsBytes<D>(p.lowRows[0]), l.rows = l.low + rowsBytes<D>(p.lowRows[1]);
      return l;
    }
    DEV int stage(const Layout& l) { return P::bytes + l.rows; }
  };

  // fetch starts a page's copy.
  DEV void fetch(const Layout& l, u8* stage, const u8* page, int lane) {
    constexpr int kSplit = P::kSomeKeys ? P::kLow / 16 : 0, kChunks = P::bytes / 16;
    fetchPieces<0, kSplit>(stage, page, lane);
    fetchPieces<kSplit, kChunks>(stage, page + l.low, lane);
    if (!P::kSome) return;
    if (P::kSomeKeys)
      for (int at = lane; at < l.low / 16; at += 32) copy16(stage + P::bytes + 16 * at, page + P::kLow + 16 * at);
    if (V == kSomeTokens)
      for (int at = l.low / 16 + lane; at < l.rows / 16; at += 32) copy16(stage + P::bytes + 16 * at, page + P::bytes + 16 * at);
  }
  // fetchPieces starts the copies of 16-byte pieces whose number the program knows.
  template <int FROM, int TO>
  DEV void fetchPieces(u8* stage, const u8* page, int lane) {
#pragma unroll
    for (int i = 0; i < (TO - FROM + 31) / 32; i++) {
      int at = FROM + lane + 32 * i;
      if (FROM + 32 * i + 32 <= TO || at < TO) copy16(stage + 16 * P::staged(at, 0), page + 16 * at);
    }
  }

  // second is where a page's second planes are.
  DEV Second second(const Layout& l, const u8* stage) {
    int rows = l.low / (D / 4);
    Second s = {stage + (P::kSomeKeys ? P::bytes : P::kLow), stage + (V == kSomeTokens ? P::bytes + l.low : P::vTop + P::plane),
                {rows, (l.rows - l.low) / (D / 4)}, (l.refined & 1) != 0, (l.refined & 2) != 0};
    return s;
  }

  DEV void page(Running<D, NQ>& s, const QueryCodes<D, K, NQ>& c, const u8* stage, const Second& second, bool first, int lane) {
    int r = lane >> 2, q = lane & 3;
    float x[kUnits][4][2];  // less the reference
    float top[2] = {kMinusInf, kMinusInf};
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      Keys<D, K, V, ASYM, NQ>::sums(x[u], stage, second, c, u, lane);
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          x[u][t][e] = fusedMulAdd(x[u][t][e], c.scale[e], -s.m[e]);
          top[e] = larger(top[e], x[u][t][e]);
        }
    }
    if (laneAny(larger(top[0], top[1]) > kRebase) || (first && !seen(top))) rebase(s, x, first);
    // weights, folded with the values' scales
    float p[kUnits][4][2], largest[2] = {0, 0};
    u32 four[kUnits];  // bytes of the tokens that have both planes, of V
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      int mine = NQ == 4 ? r + 8 * (q >> 1) : r + 8 * u;
      typename Keys<D, K, V, ASYM, NQ>::Levels l;
      Keys<D, K, V, ASYM, NQ>::levels(l, stage + P::vScale, mine, V == kFourBits ? 7.5f : 1.5f);
      if (V == kSomeTokens) {
        u64 set = load<u64>(stage + P::vSet);
#pragma unroll
        for (int t = 0; t < 4; t++) some(l.scale[t], l.zero[t], l.middle[t], set, 4 * mine + t, second.refinedV);
        four[u] = spreadBits((u32)(set >> (4 * mine)) & 15);
      }
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float w = exp2Fast(x[u][t][e]);
          s.sum[e] += w;
          if (ASYM) s.centre[e] += w * (l.zero[t] + l.middle[t] * l.scale[t]);
          p[u][t][e] = w * l.scale[t];
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
        u32 all = sum4(word[u][e]);
        if (V == kSomeTokens) all = 4 * all + sum4(word[u][e] & four[u]);  // middles of 6 and 7.5
        s.middle[e] += step[e] * (float)all;
      }
    values(s, word, step, stage, second, lane);
  }

  // seen reports whether no query's scores are all far below the reference.
  DEV bool seen(const float (&top)[2]) {
    bool all = true;
#pragma unroll
    for (int e = 0; e < 2; e++) {
      u32 lanes = laneVotes(top[e] > -kRebase);
#pragma unroll
      for (int shift = 16; shift >= (NQ == 4 ? 2 : 4); shift /= 2) lanes |= lanes >> shift;
      u32 queries = NQ == 4 ? 3 : 15;
      all = all && (lanes & queries) == queries;
    }
    return all;
  }

  // rebase moves the reference exponents to the largest score: up, and on the first
  // page down.
  DEV void rebase(Running<D, NQ>& s, float (&x)[kUnits][4][2], bool first) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float top = first ? kMinusInf : 0;
#pragma unroll
      for (int u = 0; u < kUnits; u++)
#pragma unroll
        for (int t = 0; t < 4; t++) top = larger(top, x[u][t][e]);
      top = larger(top, laneXor(top, 4));
      top = larger(top, laneXor(top, 8));
      top = larger(top, laneXor(top, 16));
      if (NQ == 4) top = larger(top, laneXor(top, 2));
      float shrink = first ? 0 : exp2Fast(-top);
      s.m[e] += top;
      s.sum[e] *= shrink, s.middle[e] *= shrink, s.centre[e] *= shrink;
#pragma unroll
      for (int i = 0; i < Running<D, NQ>::kTiles; i++) s.value[i][e] *= shrink, s.value[i][2 + e] *= shrink;
#pragma unroll
      for (int u = 0; u < kUnits; u++)
#pragma unroll
        for (int t = 0; t < 4; t++) x[u][t][e] -= top;
    }
  }

  // values multiplies the weights' codes with the values' and adds them up.
  DEV void values(Running<D, NQ>& s, const u32 (&word)[kUnits][2], const float (&step)[2], const u8* stage, const Second& second, int lane) {
    int r = lane >> 2, q = lane & 3;
    u64 set = V == kSomeTokens ? load<u64>(stage + P::vSet) : 0;
    u32 w[kUnits][2];  // of query r%NQ: quads 2q and 2q+1 of its half
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      u32 low = transpose8(permute<0x5410>(word[u][0], word[u][1])), high = transpose8(permute<0x7632>(word[u][0], word[u][1]));
      w[u][0] = permute<0x5410>(low, high), w[u][1] = permute<0x7632>(low, high);
    }
    int sum[Running<D, NQ>::kTiles][4];
#pragma unroll
    for (int plane = 0; plane < (kBoth ? 2 : 1); plane++) {
      auto read = [&](ValueWords<D>& a, int quad) {
        if (plane == 1 && V == kSomeTokens) {
          ValueWords<D>::readSome(a, second.v, second.rows[1], set, quad, r);
        } else {
          ValueWords<D>::read(a, plane == 0 ? stage + P::vTop : second.v, quad, r, q);
        }
      };
      if (plane == 1)
#pragma unroll
        for (int i = 0; i < Running<D, NQ>::kTiles; i++)
#pragma unroll
          for (int e = 0; e < 4; e++) sum[i][e] *= 4;
      if (plane == 1 && V == kSomeTokens && !set) break;  // of many pages none
      using Words = ValueWords<D>;
      if (NQ == 4) {
        u32 other0 = laneXor(w[0][0], 16), other1 = laneXor(w[0][1], 16);
        bool lower = r < 4;
        u32 of[4] = {lower ? w[0][0] : other0, lower ? w[0][1] : other1, lower ? other0 : w[0][0], lower ? other1 : w[0][1]};
        if (D == 128) {
#pragma unroll
          for (int k = 0; k < 4; k++) {
            Words a;
            read(a, 8 * (k >> 1) + 2 * q + (k & 1));
            u32 b0 = lower ? of[k] : 0, b1 = lower ? 0 : of[k];
#pragma unroll
            for (int i = 0; i < 4; i++)
              add(sum[i], plane == 0 && k == 0, a.w[0] & maskOf(i), a.w[1] & maskOf(i), a.w[D / 64] & maskOf(i), a.w[D / 32 - 1] & maskOf(i), b0, b1);
          }
        } else {  // columns 4..7 repeat columns 0..3
#pragma unroll
          for (int k = 0; k < 2; k++) {
            Words a, b;
            read(a, 2 * q + k), read(b, 8 + 2 * q + k);
#pragma unroll
            for (int i = 0; i < 4; i++) add(sum[i], plane == 0 && k == 0, a.w[0] & maskOf(i), a.w[1] & maskOf(i), b.w[0] & maskOf(i), b.w[1] & maskOf(i), of[k], of[2 + k]);
          }
        }
      } else {
#pragma unroll
        for (int u = 0; u < kUnits; u++) {
          Words a, b;
          read(a, 8 * u + 2 * q), read(b, 8 * u + 2 * q + 1);
#pragma unroll
          for (int j = 0; j < D / 32; j += 2)
#pragma unroll
            for (int i = 0; i < 4; i++)
              add(sum[2 * j + i], plane == 0 && u == 0, a.w[j] & maskOf(i), a.w[j + 1] & maskOf(i), b.w[j] & maskOf(i), b.w[j + 1] & maskOf(i), w[u][0], w[u][1]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < Running<D, NQ>::kTiles; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = fusedMulAdd(step[e & 1], V == kTwoBits ? asFloat((u32)sum[i][e]) - kWholeFloat : (float)sum[i][e], s.value[i][e]);
  }

  // add multiplies a tile's codes; sums of 2-bit ones begin as the bits of a float,
  // which spares their conversion.
  DEV void add(int (&sum)[4], bool first, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (first) {
      mmaWeightFrom(sum, a0, a1, a2, a3, b0, b1, V == kTwoBits ? kWhole : 0);
    } else {
      mmaWeight(sum, a0, a1, a2, a3, b0, b1);
    }
  }

  // store puts the warp's state and values where the block merges them.
  DEV void store(Running<D, NQ>& s, State* states, float* out, int lane) {
    int r = lane >> 2, q = lane & 3;
    constexpr float kMiddle = V == kFourBits ? 7.5f : 1.5f;
    float off[2];
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
      if (r == 0 && (NQ == 8 || q < 2)) states[query] = State{s.sum[e] > 0 ? s.m[e] : kMinusInf, s.sum[e]};
      off[e] = ASYM ? s.centre[e] - kMiddle * s.middle[e] : -kMiddle * s.middle[e];
    }
    using R = Runs<D, NQ>;
#pragma unroll
    for (int run = 0; run < R::kRuns; run++) {
      int i = run % R::kTiles, e = run / R::kTiles;
      float unit = 1.0f / (1 << 2 * (i & 3));
      bool other = R::kSides == 1 && q >= 2;  // of two columns that repeat each other, each gives one query
      float x = other ? s.value[i][1] : s.value[i][e], y = other ? s.value[i][3] : s.value[i][2 + e], o = other ? off[1] : off[e];
      *(Pair32*)(out + 64 * run + 2 * lane) = Pair32{asBits(x * unit + o), asBits(y * unit + o)};
    }
  }

  // Pages is a warp's share of an item's pages: warp, warp + warps, …
  struct Pages {
    const u64* table;
    u64 offset, next;  // next: a lane's, the addresses of the next 32 pages
    int n, warps;
    Layout layout;
    u8* ring;

    DEV Pages of(const AttendParams& p, const Item& it, u8* ring, int warp, int warps, int lane) {
      Pages s;
      s.table = p.coded + (u64)it.sequence * p.pages + it.lo + warp;
      s.layout = Layout::of(p);
      s.offset = p.codedLayer + (u64)it.head * Layout::stage(s.layout);
      s.n = warp >= 0 && it.hi - it.lo > warp ? (it.hi - it.lo - warp + warps - 1) / warps : 0;  // warp < 0: an exact one
      s.warps = warps;
      s.ring = ring;
      s.next = ahead(s, lane);
      return s;
    }

    // ahead asks for a lane's address of page at.
    DEV u64 ahead(const Pages& s, int at) { return at < s.n ? s.table[at * s.warps] : 0; }

    // start begins page k's copy, or an empty group behind the last.
    DEV void start(Pages& s, int k, int lane) {
      if (k % 32 == 0 && k > 0) s.next = ahead(s, k + lane);
      if (k < s.n) fetch(s.layout, s.ring + k % kStages * Layout::stage(s.layout), (const u8*)(laneShuffle(s.next, k % 32) + s.offset), lane);
      copyCommit();
    }
  };

  // run goes through a warp's pages, of which the first are on their way.
  DEV void run(Pages& pages, const typename QueryCodes<D, K, NQ>::Shared* queries, State* states, float* out, int lane) {
    QueryCodes<D, K, NQ> c;
    QueryCodes<D, K, NQ>::take(c, queries, lane);
    Running<D, NQ> s;
#pragma unroll
    for (int e = 0; e < 2; e++) s.m[e] = s.sum[e] = s.middle[e] = s.centre[e] = 0;
#pragma unroll
    for (int i = 0; i < Running<D, NQ>::kTiles; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
#pragma unroll 1
    for (int k = 0; k < pages.n; k++) {
      warpSync();  // all lanes are done with the stage that comes next
      Pages::start(pages, k + kStages - 1, lane);
      copyWait<kStages - 1>();
      warpSync();
      u8* stage = pages.ring + k % kStages * Layout::stage(pages.layout);
      page(s, c, stage, second(pages.layout, stage), k == 0, lane);
    }
    copyWait<0>();
    store(s, states, out, lane);
  }
};
