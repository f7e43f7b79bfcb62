// Prompt attention over coded pages, with the exact windows.
//
// A warp has 16 query vectors, the rows of the tensor cores' 16-row operand. A
// column is a quad of tokens: tile j of 32 tokens has token j of each quad, so
// that four tiles' weights make whole words, the operand of the values, without a
// lane asking another. Q and P are codes as in decode; weights are quantised a row
// and page at a time.
//
// A row reads whole coded pages only, up to its own limit (docs/formats.md); the
// sinks and the recent tokens follow in float16, with their causal limit.
#pragma once
#include "attend.cuh"

struct PrefillParams {
  const u64* coded;  // [page] of the sequence
  const u64* exact;
  u64 codedLayer, exactLayer;
  const float* q;  // [row][kv head][group][D]
  float* out;
  int position;  // of row 0
  int rows;
  int heads;
  int group;
  int sinks;   // multiples of 64
  int recent;  // < 0: everything is exact from token ~recent on
  float scale;  // of the scores, times log2(e)
  int lowRows[2];  // as AttendParams'
  int refined;     // likewise
  float* states;   // of each vector in out, the reference exponent of its weights and their sum; null: nowhere
};

template <int D, int K, int V, bool ASYM>
struct Prefill {
  using P = Page<D, K, V, ASYM>;
  using Words = ValueWords<D>;
  static constexpr int kWarps = 4, kVectors = 16 * kWarps, kStages = 4;
  static constexpr int kTiles = D / 8;  // of 8 channels
  static constexpr int kPairs = D / 32;  // bit pairs times the 32-deep products that one takes
  // Bytes of a page's K, as the tensor cores read it, and of what some tokens have
  // of a second plane of V, in full.
  static constexpr int kLeadWords = kLeads<K> ? K / 16 : 0, kLeadKeys = kLeads<K> ? 8 * 512 : 0;  // leading channels stand apart
  static constexpr int kKeys = kTokens * D + kLeadKeys, kOperand = kKeys + (V == kSomeTokens ? P::plane : 0);
  static constexpr bool kBothK = K != kTwoBits && !kLeads<K>, kBothV = V != kTwoBits;
  static_assert(kLeadWords <= 4, "a lane's first word leads or not");
  static constexpr float kMiddleK = kBothK && K != kPlan ? 7.5f : 1.5f, kMiddleV = V == kFourBits ? 7.5f : 1.5f;

  // Rows is a lane's two vectors, r and r + 8 of its warp.
  struct Rows {
    int position[2];  // -1: beyond the last
    int from[2];      // coded tokens end here
    float m[2], sum[2], middle[2], centre[2];
    float value[kTiles][4];  // tile (D/32)·i + j: word j of a run, bit pair i
  };

  struct Codes {
    u32 word[kPairs][4];  // [product][register of the operand]: a bit pair of 8 words, or two of 4
    float scale[2];
    // Of the codes: of all channels, or but the leading ones, and of those; as planned,
    // of all four times and of the leading ones.
    int sum[2], lead[2];
    int refined;
  };

  DEV int from(const PrefillParams& p, int position) {
    int n = position + 1;
    int f = p.recent < 0 ? ~p.recent : n < p.recent ? 0 : (n - p.recent) / kTokens * kTokens;
    return f > p.sinks ? f : 0;
  }

  DEV const float* vector(const PrefillParams& p, int v) { return p.q + ((u64)(v / p.group * p.heads + blockIdx.y) * p.group + v % p.group) * D; }

  DEV void loadQueries(Codes& c, const PrefillParams& p, const Rows& rows, int first, int lane) {
    int r = lane >> 2, q = lane & 3, planned = K == kPlan ? leadWords<D>(p.lowRows[0]) : 0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = vector(p, first + r + 8 * h);
      float v[D / 64][16], top = 0;
#pragma unroll
      for (int s = 0; s < D / 64; s++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          Quad32 w = rows.position[h] >= 0 ? load<Quad32>(x + 16 * (4 * s + q) + 4 * i) : Quad32{0, 0, 0, 0};
#pragma unroll
          for (int b = 0; b < 4; b++) {
            v[s][4 * i + b] = asFloat(wordOf(w, b));
            top = larger(top, fabsf(v[s][4 * i + b]));
          }
        }
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      float inv = top > kTiny ? 127 / top : 0;
      int sum = 0, lead = 0;
#pragma unroll
      for (int s = 0; s < D / 64; s++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          u32 b[4];
#pragma unroll
          for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(v[s][4 * i + k], inv, kMagicFloat));
          u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
          if (D == 128) {
            c.word[i][h + 2 * s] = w;
          } else {
            c.word[i / 2][h + 2 * (i % 2)] = w;
          }
          if (K == kPlan) {
            int part = dot4(w, 0x01010101u, 0);
            sum += 4 * part + (4 * s + q < planned ? part : 0);
          } else if (s == 0 && q < kLeadWords) {
            lead = dot4(w, 0x01010101u, lead);
          } else {
            sum = dot4(w, 0x01010101u, sum);
          }
        }
      sum += laneXor(sum, 1);
      sum += laneXor(sum, 2);
      c.sum[h] = sum;
      if (kLeads<K>) {
        lead += laneXor(lead, 1);
        lead += laneXor(lead, 2);
      }
      c.lead[h] = lead;
      c.refined = p.refined;
      c.scale[h] = top / 127 * p.scale * (K == kPlan && planned < D / 16 ? 0.125f : 0.5f);
    }
  }

  // twice is two times the codes of bit pair i: the products are whole numbers
  // when the middle of the levels is taken off.
  template <bool BOTH>
  DEV u32 twice(u32 top, u32 low, int i) {
    if (!BOTH) return (i == 0 ? top << 1 : top >> (2 * i - 1)) & 0x06060606u;
    u32 high = i == 0 ? top << 3 : i == 1 ? top << 1 : top >> (2 * i - 3);
    return (high & 0x18181818u) | ((i == 0 ? low << 1 : low >> (2 * i - 1)) & 0x06060606u);
  }

  // keyWord is a word of a token of a plane that has so many a token.
  template <int WORDS = D / 16>
  DEV u32 keyWord(const u8* plane, int quad, int word, int j) { return keyWordOf(plane, WORDS, quad, word, j); }
  DEV u32 keyWordOf(const u8* plane, int words, int quad, int word, int j) {
    return load<u32>(plane + ((quad >> 1) * words + word) * 32 + (quad & 1) * 16 + 4 * j);
  }

  // spreadLead does the leading channels: their words for all bit pairs side by side.
  DEV void spreadLead(u8* to, const u8* page, int quad, int q, int j) {
    constexpr int kWords = kLeadWords ? kLeadWords : 1;
    u32 top = q < kWords ? keyWord<kWords>(page + P::kTop, quad, q, j) : 0, low = q < kWords ? keyWord<kWords>(page + P::kLow, quad, q, j) : 0;
    *(Quad32*)to = Quad32{twice<true>(top, low, 0), twice<true>(top, low, 1), twice<true>(top, low, 2), twice<true>(top, low, 3)};
  }

  // restWord is a word of the top plane; of leading channels none, where they stand
  // apart. planned is the words that lead as planned.
  DEV u32 restWord(const u8* page, int planned, int quad, int word, int j) {
    constexpr int kRest = D / 16 - kLeadWords;
    if (K == kPlan) {
      if (word < planned) return keyWordOf(page + P::kTop, planned, quad, word, j);
      return keyWordOf(page + P::kTop + 4 * kTokens * planned, D / 16 - planned, quad, word - planned, j);
    }
    if (!kLeads<K>) return keyWord(page + P::kTop, quad, word, j);
    return word < kLeadWords ? 0 : keyWord<kRest>(page + P::kTop1, quad, word - kLeadWords, j);
  }

  // spread makes a page's K what all warps multiply with, a quarter of it each:
  // [half of the page][token of the quad][product][lane] of 8 bytes, two products
  // side by side.
  DEV void spread(const PrefillParams& p, u8* operand, const u8* page, int warp, int lane) {
    int r = lane >> 2, q = lane & 3, j = warp, planned = K == kPlan ? leadWords<D>(p.lowRows[0]) : 0;
    u64 set = 0;
    if (K == kSomeTokens) set = load<u64>(page + P::kSet);
    auto low = [&](int quad, int word) {
      if (K == kSomeTokens) return lowKeyWord<D>(page + P::bytes, p.lowRows[0], set, 4 * quad + j, word);
      if (K == kPlan) return word < planned ? keyWordOf(page + P::bytes, planned, quad, word, j) : 0;
      return K == kFourBits ? keyWord(page + P::kLow, quad, word, j) : 0;
    };
#pragma unroll
    for (int u = 0; u < 2; u++) {
      u32 a = restWord(page, planned, 8 * u + r, q, j), al = low(8 * u + r, q);
      if (kLeads<K>) spreadLead(operand + kTokens * D + (u * 4 + j) * 512 + lane * 16, page, 8 * u + r, q, j);
      u8* to = operand + (u * 4 + j) * (kPairs * 256) + lane * 16;
      if (D == 128) {
        u32 b = restWord(page, planned, 8 * u + r, 4 + q, j), bl = low(8 * u + r, 4 + q);
#pragma unroll
        for (int i = 0; i < 4; i += 2) *(Quad32*)(to + i * 256) = Quad32{twice<kBothK>(a, al, i), twice<kBothK>(b, bl, i), twice<kBothK>(a, al, i + 1), twice<kBothK>(b, bl, i + 1)};
      } else {
        *(Quad32*)to = Quad32{twice<kBothK>(a, al, 0), twice<kBothK>(a, al, 1), twice<kBothK>(a, al, 2), twice<kBothK>(a, al, 3)};
      }
    }
    if (V == kSomeTokens) spreadLow<D>(operand + kKeys, page + P::bytes + rowsBytes<D>(p.lowRows[0]), p.lowRows[1], load<u64>(page + P::vSet), threadIdx.x, 32 * kWarps);
  }

  using Levels = typename Keys<D, K, V, ASYM, 8>::Levels;

  // levels is what the codes of a quad of tokens stand for.
  DEV void levels(Levels& l, const u8* page, bool someTokens, bool refined, int set, int params, int quad, float middle) {
    Keys<D, K, V, ASYM, 8>::levels(l, page + params, quad, middle);
    if (someTokens) {
      u64 four = load<u64>(page + set);
#pragma unroll
      for (int t = 0; t < 4; t++) some(l.scale[t], l.zero[t], l.middle[t], four, 4 * quad + t, refined);
    }
  }

  // scores: x[u][j][e] of token 4(8u + 2q + e%2) + j and row e/2.
  DEV void scores(float (&x)[2][4][4], const u8* operand, const u8* page, const Codes& c, int lane) {
    int q = lane & 3;
    constexpr int kTwice = (int)(2 * kMiddleK);
    int init[2] = {kMagic - kTwice * c.sum[0], kMagic - kTwice * c.sum[1]};
#pragma unroll
    for (int u = 0; u < 2; u++) {
      int sum[4][4], lead[4][4];
      if (kLeads<K>) leadSums(lead, operand + kTokens * D + u * 4 * 512 + lane * 16, c);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const u8* from = operand + (u * 4 + j) * (kPairs * 256) + lane * 16;
#pragma unroll
        for (int i = 0; i < kPairs; i += 2) {
          Quad32 b = load<Quad32>(from + i * 256);
          if (i == 0) {
            mmaSignedFrom(sum[j], c.word[0][0], c.word[0][1], c.word[0][2], c.word[0][3], b.x, b.y, init[0], init[1]);
          } else {
            mmaSigned(sum[j], c.word[i][0], c.word[i][1], c.word[i][2], c.word[i][3], b.x, b.y);
          }
          mmaSigned(sum[j], c.word[i + 1][0], c.word[i + 1][1], c.word[i + 1][2], c.word[i + 1][3], b.z, b.w);
        }
      }
#pragma unroll
      for (int e = 0; e < 2; e++) {
        Levels l;
        levels(l, page, K == kSomeTokens, (c.refined & 1) != 0, P::kSet, P::kScale + (kLeads<K> ? P::perSegment : 0), 8 * u + 2 * q + e, kMiddleK);
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float off = -kMagicFloat * l.scale[j];  // exact: a float16 times 1.5·2^23
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float y = fusedMulAdd(asFloat((u32)sum[j][2 * h + e]), l.scale[j], off);
            if (K == kSomeTokens) y += (2 * kMiddleK - 2 * l.middle[j]) * l.scale[j] * (float)c.sum[h];
            if (ASYM) y += (l.zero[j] + l.middle[j] * l.scale[j]) * (2 * (float)c.sum[h]);
            x[u][j][2 * h + e] = y;
          }
        }
        if (kLeads<K>) addLead(x[u], lead, page, 8 * u + 2 * q + e, e, c);
      }
    }
  }

  // leadSums are the sums over the leading channels.
  DEV void leadSums(int (&sum)[4][4], const u8* from, const Codes& c) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      Quad32 b = load<Quad32>(from + j * 512);
      constexpr int kNext = D == 128 ? 1 : 0, kAt = D == 128 ? 0 : 2;  // bit pair 1: a product of its own, or half of one
      constexpr int kThird = D == 128 ? 2 : 1, kFourth = D == 128 ? 3 : 1;
      mmaSignedFrom(sum[j], c.word[0][0], c.word[0][1], c.word[kNext][kAt], c.word[kNext][kAt + 1], b.x, b.y, kMagic - 15 * c.lead[0], kMagic - 15 * c.lead[1]);
      mmaSigned(sum[j], c.word[kThird % kPairs][0], c.word[kThird % kPairs][1], c.word[kFourth % kPairs][kAt], c.word[kFourth % kPairs][kAt + 1], b.z, b.w);
    }
  }

  // addLead adds what they give to the scores of a quad's tokens. What came before
  // has the scales of the other channels.
  DEV void addLead(float (&x)[4][4], const int (&sum)[4][4], const u8* page, int quad, int e, const Codes& c) {
    Levels l;
    Keys<D, K, V, ASYM, 8>::levels(l, page + P::kScale, quad, 7.5f);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float y = fusedMulAdd(asFloat((u32)sum[j][2 * h + e]), l.scale[j], -kMagicFloat * l.scale[j]);
        if (ASYM) y += (l.zero[j] + l.middle[j] * l.scale[j]) * (2 * (float)c.lead[h]);
        x[j][2 * h + e] += y;
      }
  }

  // rebase moves the reference exponents to the largest score of the page.
  DEV void rebase(Rows& s, const Codes& c, const float (&x)[2][4][4], const bool (&sees)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float top = kMinusInf;
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int j = 0; j < 4; j++) top = larger(larger(x[u][j][2 * h], x[u][j][2 * h + 1]), top);
      top = sees[h] ? top * c.scale[h] : kMinusInf;
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      if (top > s.m[h]) move(s, h, top);
    }
  }

  // weigh turns scores into weights folded with the values' scales, and gives the
  // largest of each row's.
  DEV void weigh(Rows& s, const Codes& c, float (&x)[2][4][4], float (&largest)[2], const u8* stage, const bool (&sees)[2], int q) {
    float m[2] = {sees[0] ? s.m[0] : -kMinusInf, sees[1] ? s.m[1] : -kMinusInf};  // nothing weighs anything under an infinite reference
    largest[0] = largest[1] = 0;
#pragma unroll
    for (int u = 0; u < 2; u++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        Levels l;
        levels(l, stage, V == kSomeTokens, (c.refined & 2) != 0, P::vSet, P::vScale, 8 * u + 2 * q + e, kMiddleV);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float w = exp2Fast(fusedMulAdd(x[u][j][2 * h + e], c.scale[h], -m[h]));
            s.sum[h] += w;
            if (ASYM) s.centre[h] += w * (l.zero[j] + l.middle[j] * l.scale[j]);
            w *= l.scale[j];
            x[u][j][2 * h + e] = w;
            largest[h] = larger(w, largest[h]);
          }
      }
  }

  DEV void coded(Rows& s, const Codes& c, const u8* operand, const u8* stage, int token, int lane) {
    int r = lane >> 2, q = lane & 3;
    bool sees[2] = {token < s.from[0], token < s.from[1]};
    float x[2][4][4], largest[2], before[4] = {s.sum[0], s.sum[1], s.centre[0], s.centre[1]};
    bool first = laneAny(s.m[0] == kMinusInf || s.m[1] == kMinusInf);
#pragma unroll 1
    for (;;) {
      scores(x, operand, stage, c, lane);
      if (first) rebase(s, c, x, sees);
      weigh(s, c, x, largest, stage, sees, q);
      // Weights far above the reference: it is old. Once more, with a new one.
      if (first || !laneAny(!(s.sum[0] - before[0] < 65536 && s.sum[1] - before[1] < 65536))) break;
      first = true;
      s.sum[0] = before[0], s.sum[1] = before[1], s.centre[0] = before[2], s.centre[1] = before[3];
    }
    u32 word[2][4];  // [u][register of the operand]
    float step[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      largest[h] = larger(largest[h], laneXor(largest[h], 1));
      largest[h] = larger(largest[h], laneXor(largest[h], 2));
      float inv = largest[h] > kTiny ? 255 * reciprocal(largest[h]) : 0;
      step[h] = largest[h] > kTiny ? largest[h] * (1.0f / 255) : 0;
      u32 all = 0;
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          u32 b[4];
#pragma unroll
          for (int j = 0; j < 4; j++) b[j] = asBits(fusedMulAdd(x[u][j][2 * h + e], inv, kWholeFloat));
          u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
          word[u][h + 2 * e] = w;
          all += sum4(w);
          if (V == kSomeTokens) {  // middles of 6 and 7.5
            u32 four = spreadBits((u32)(load<u64>(stage + P::vSet) >> (4 * (8 * u + 2 * q + e))) & 15);
            all += 3 * sum4(w) + sum4(w & four);
          }
        }
      s.middle[h] += step[h] * (float)all;
    }
    Words v[2][2];
    auto read = [&](const u8* plane) {
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int e = 0; e < 2; e++) Words::read(v[u][e], plane, 8 * u + 2 * q + e, r, q);
    };
#pragma unroll
    for (int half = 0; half < (kBothV ? 2 : 1); half++) {
      read(half == 0 ? stage + P::vTop : V == kSomeTokens ? operand + kKeys : stage + P::vTop + P::plane);
      // of a 4-bit code the top plane weighs four times the other
      float unit = kBothV && half == 0 ? 4 : 1;
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < D / 32; j++) {
          int sum[4];  // of at most 64·255·192, as the bits of 2^23 + sum
          mmaWeightFrom(sum, word[0][0], word[0][1], word[0][2], word[0][3], v[0][0].w[j] & maskOf(i), v[0][1].w[j] & maskOf(i), kWhole);
          mmaWeight(sum, word[1][0], word[1][1], word[1][2], word[1][3], v[1][0].w[j] & maskOf(i), v[1][1].w[j] & maskOf(i));
          float* to = s.value[D / 32 * i + j];
#pragma unroll
          for (int e = 0; e < 4; e++) to[e] = fusedMulAdd(unit * step[e >> 1], asFloat((u32)sum[e]) - kWholeFloat, to[e]);
        }
    }
  }

  // move raises row h's reference exponent.
  DEV void move(Rows& s, int h, float m) {
    float shrink = exp2Fast(s.m[h] - m);
    s.m[h] = m;
    s.sum[h] *= shrink, s.middle[h] *= shrink, s.centre[h] *= shrink;
#pragma unroll
    for (int i = 0; i < kTiles; i++) s.value[i][2 * h] *= shrink, s.value[i][2 * h + 1] *= shrink;
  }

  // settle makes the sums over codes plain values.
  DEV void settle(Rows& s) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float off = -kMiddleV * s.middle[h] + (ASYM ? s.centre[h] : 0);
      off += laneXor(off, 1);
      off += laneXor(off, 2);
#pragma unroll
      for (int i = 0; i < kTiles; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) s.value[i][2 * h + e] = s.value[i][2 * h + e] * (1.0f / (1 << 2 * (i / (D / 32)))) + off;
    }
  }

  DEV const u8* row(const PrefillParams& p, int t, int half) {
    return (const u8*)(p.exact[t / kTokens] + p.exactLayer) + (2 * blockIdx.y + half) * (kTokens * D * 2) + t % kTokens * D * 2;
  }

  // exact adds 16 tokens in float16.
  DEV void exact(Rows& s, const PrefillParams& p, const u32 (&query)[D / 16][4], int first, int last, int lane) {
    int r = lane >> 2, q = lane & 3;
    float x[2][4] = {};
#pragma unroll
    for (int n = 0; n < 2; n++) {
      int t = min(first + 8 * n + r, last);
#pragma unroll
      for (int k = 0; k < D / 32; k++) {
        Quad32 w = load<Quad32>(row(p, t, 0) + (32 * k + 8 * q) * 2);
        mmaHalf(x[n], query[2 * k][0], query[2 * k][1], query[2 * k][2], query[2 * k][3], w.x, w.y);
        mmaHalf(x[n], query[2 * k + 1][0], query[2 * k + 1][1], query[2 * k + 1][2], query[2 * k + 1][3], w.z, w.w);
      }
    }
    u32 a[4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      bool sees[2][2];
      float top = s.m[h];
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          int t = first + 8 * n + 2 * q + e;
          sees[n][e] = t <= s.position[h] && (t < p.sinks || t >= s.from[h]);
          if (sees[n][e]) top = larger(top, x[n][2 * h + e]);
        }
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      if (top > s.m[h]) move(s, h, top);  // a weight is at most 1, as float16
      float w[2][2];
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          w[n][e] = sees[n][e] ? exp2Fast(x[n][2 * h + e] - top) : 0;
          s.sum[h] += w[n][e];
        }
      a[h] = narrow2(w[0][0], w[0][1]), a[2 + h] = narrow2(w[1][0], w[1][1]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      u32 v[4][D / 64];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        int t = first + 2 * q + (k & 1) + 8 * (k >> 1);
        const u8* from = row(p, min(t, last), 1) + (Words::channel(r) + 8 * i) * 2;
        if (t > last) {
          v[k][0] = 0;
          v[k][D / 64 - 1] = 0;
        } else if (D == 128) {
          Pair32 x = load<Pair32>(from);
          v[k][0] = x.x, v[k][D / 64 - 1] = x.y;
        } else {
          v[k][0] = load<u32>(from);
        }
      }
#pragma unroll
      for (int j = 0; j < D / 64; j++) {
        mmaHalf(s.value[D / 32 * i + 2 * j], a[0], a[1], a[2], a[3], permute<0x5410>(v[0][j], v[1][j]), permute<0x5410>(v[2][j], v[3][j]));
        mmaHalf(s.value[D / 32 * i + 2 * j + 1], a[0], a[1], a[2], a[3], permute<0x7632>(v[0][j], v[1][j]), permute<0x7632>(v[2][j], v[3][j]));
      }
    }
  }

  // begin is a lane's state before any token.
  DEV void begin(Rows& s, const PrefillParams& p, int first, int blockLast, int lane) {
    int r = lane >> 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int v = first + r + 8 * h;
      s.position[h] = v <= blockLast ? p.position + v / p.group : -1;
      s.from[h] = s.position[h] < 0 ? 0 : from(p, s.position[h]);
      s.m[h] = kMinusInf, s.sum[h] = s.middle[h] = s.centre[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < kTiles; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
  }

  // finish adds what is read exactly, and stores.
  DEV void finish(Rows& s, const PrefillParams& p, int first, int blockFirst, int blockLast, int lane) {
    int r = lane >> 2, q = lane & 3;
    u32 query[D / 16][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = vector(p, first + r + 8 * h);
#pragma unroll
      for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int y = 0; y < 2; y++) {
          int ch = 32 * (k / 2) + 8 * q + 4 * (k % 2) + 2 * y;
          query[k][h + 2 * y] = s.position[h] >= 0 ? narrow2(x[ch] * p.scale, x[ch + 1] * p.scale) : 0;
        }
    }
    int last = p.position + blockLast / p.group, begin = from(p, p.position + blockFirst / p.group);
    for (int t = 0; t <= last; t += 16) {
      if (t >= p.sinks && t < begin) t = begin;
      exact(s, p, query, t, last, lane);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      s.sum[h] += laneXor(s.sum[h], 1);
      s.sum[h] += laneXor(s.sum[h], 2);
      if (s.position[h] < 0) continue;
      if (p.states && q == 0) *(State*)(p.states + 2 * ((vector(p, first + r + 8 * h) - p.q) / D)) = State{s.m[h], s.sum[h]};
      float inv = s.sum[h] > 0 ? 1 / s.sum[h] : 0;
      float* out = p.out + (vector(p, first + r + 8 * h) - p.q);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          u32 w[D / 32];
#pragma unroll
          for (int j = 0; j < D / 32; j++) w[j] = asBits(s.value[D / 32 * i + j][2 * h + e] * inv);
          float* to = out + Words::channel(2 * q + e) + 8 * i;
          *(Pair32*)to = Pair32{w[0], w[1]};
          if (D == 128) *(Pair32*)(to + 2) = Pair32{w[D / 64], w[D / 32 - 1]};
        }
    }
  }

  DEV void run(const PrefillParams& p) {
    SHARED(ring);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1, first = blockFirst + 16 * warp;
    Rows s;
    begin(s, p, first, blockLast, lane);
    int lo = p.sinks / kTokens, end = from(p, p.position + blockLast / p.group), n = end / kTokens - lo;
    const int lows = P::kSome ? rowsBytes<D>(p.lowRows[0] + p.lowRows[1]) : 0, pageBytes = P::bytes + lows;
    u64 offset = p.codedLayer + (u64)blockIdx.y * pageBytes;
    auto start = [&](int k) {
      if (k < n) {
        const u8* page = (const u8*)(p.coded[lo + k] + offset);
        u8* stage = ring + k % kStages * pageBytes;
        for (int at = threadIdx.x; at < pageBytes / 16; at += 32 * kWarps) copy16(stage + 16 * P::staged(at, p.lowRows[0]), page + 16 * at);
      }
      copyCommit();
    };
    u8* operands = ring + kStages * pageBytes;
    Codes c;
    start(0), start(1);
    loadQueries(c, p, s, first, lane);
    for (int k = -1; k < n; k++) {
      // page k + 1 is there; page k is spread, and nobody reads k - 1 any more
      copyWait<1>();
      blockSync();
      start(k + 3);
      if (k + 1 < n) spread(p, operands + (k + 1) % 2 * kOperand, ring + (k + 1) % kStages * pageBytes, warp, lane);
      if (k >= 0) coded(s, c, operands + k % 2 * kOperand, ring + k % kStages * pageBytes, (lo + k) * kTokens, lane);
    }
    settle(s);
    finish(s, p, first, blockFirst, blockLast, lane);
  }
};
