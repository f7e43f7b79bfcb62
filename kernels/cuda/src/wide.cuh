// Prompt attention with Hopper's warpgroup products (sm_90a).
//
// A block is four or five warpgroups that never meet. One or two copy pages and spread
// them into a ring of operands; each of the others attends for 64 query vectors, with
// the tensor cores reading the operands in shared memory. While one turns sums into
// weights the tensor cores have the others' products.
//
// Queries and codes of K are multiplied as in prefill.cuh where there are 128 channels.
// With 64, where products are half and the work on each score is the same, K is spread
// like V, and the queries' codes are float16. Weights and values are
// float16: V is spread as what its codes stand for, each number rounded once, so that
// the tensor cores add up over pages, and no instruction is spent on a weight's scale
// or on an output but where the reference moves. The exact windows follow through the
// same ring, in float16 whole.
//
// A warp has 16 vectors: a lane r and r + 8 of them (r = lane / 4), and of every eight
// columns 2q and 2q + 1 (q = lane % 4). Columns of scores are tokens in a page's order,
// but the middle two of each quad have changed places, as V's words have them. Columns
// of values are channels.
#pragma once
#include "spread.cuh"

template <int D, int K, int V, bool ASYM>
struct Wide : Spread<D, K, V, ASYM> {
  using Base = Spread<D, K, V, ASYM>;
  using typename Base::Operand;
  using typename Base::Plain;
  using typename Base::Scales;
  using typename Base::Shared;
  using typename Base::Span;
  using Base::kGroups;
  using Base::kHalf;
  using Base::kHalves;
  using Base::kLeadWords;
  using Base::kRow;
  using Base::kSlots;
  using Base::kSpreaders;
  using Base::kStages;
  using Base::kThreads;
  using Base::kVectors;
  static constexpr int kHeld = kLeads<K> ? 0 : ASYM ? 1 : 2;  // of a warp's coded queries, 32 channels each: in registers; the others in shared memory
  static constexpr float kLift = 8;         // exponents of the largest weight when the reference moves
  static constexpr float kMost = 1 << 15;   // no weight is larger: a float16 has room for twice as much

  struct Rows {
    int from[2];  // coded tokens end here; 0 beyond the last row
    float m[2], sum[2];
    float value[D / 8][4];
  };
  struct Codes {
    u32 word[kHeld + 1][4];
    u32 half[D / 16][4];  // the same as float16, channels as KeyHalves has them
    float scale[2];
    float sum[2], lead[2];  // asymmetric: of the codes, of all channels, or but the leading ones, and of those
  };

  // loadQueries codes a warp's queries, and writes them as float16 too.
  DEV void loadQueries(Codes& c, u8* operand, u8* codes, const PrefillParams& p, int first, int blockLast, int row, int lane) {
    int r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = Plain::vector(p, first + r + 8 * h);
      float v[D / 16][4], top = 0;
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        Quad32 w = first + r + 8 * h <= blockLast ? load<Quad32>(x + 16 * i + 4 * q) : Quad32{0, 0, 0, 0};
#pragma unroll
        for (int b = 0; b < 4; b++) v[i][b] = asFloat(wordOf(w, b)), top = larger(top, fabsf(v[i][b]));
        int at = 2 * i + q / 2;
        *(Pair32*)(operand + at / 8 * (64 * kRow) + (row + r + 8 * h) * kRow + ((at ^ r) & 7) * 16 + q % 2 * 8) =
            Pair32{narrow2(v[i][0] * p.scale, v[i][1] * p.scale), narrow2(v[i][2] * p.scale, v[i][3] * p.scale)};
      }
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      float inv = top > kTiny ? 127 / top : 0;
      int sum = 0, lead = 0;
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        u32 b[4];
#pragma unroll
        for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(v[i][k], inv, kMagicFloat));
        if constexpr (kHalf) {
          float x[4];
#pragma unroll
          for (int k = 0; k < 4; k++) x[k] = asFloat(b[k]) - kMagicFloat;
          c.half[i][h] = narrow2(x[0], x[2]), c.half[i][2 + h] = narrow2(x[1], x[3]);
          continue;
        }
        u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
        if (i / 2 < kHeld) {
          c.word[i / 2 % (kHeld + 1)][h + 2 * (i % 2)] = w;
        } else {
          *(u32*)(codes + (row + r + 8 * h) * kRow + (i ^ r) * 16 + 4 * q) = w;
        }
        if (i < kLeadWords) {
          lead = dot4(w, 0x01010101u, lead);
        } else {
          sum = dot4(w, 0x01010101u, sum);
        }
      }
      if (ASYM) {
        sum += laneXor(sum, 1);
        sum += laneXor(sum, 2);
      }
      if (ASYM && kLeads<K>) {
        lead += laneXor(lead, 1);
        lead += laneXor(lead, 2);
      }
      c.sum[h] = (float)sum, c.lead[h] = (float)lead;
      c.scale[h] = top / 127 * p.scale;
    }
  }

  struct Four {
    float x[4];
  };
  DEV Four fourOf(const float* of, int i, int q) {
    Quad32 w = load<Quad32>(of + 16 * i + q);
    return Four{{asFloat(w.x), asFloat(w.y), asFloat(w.z), asFloat(w.w)}};
  }
  // place is where a product has a lane's column t of columns 16i.
  DEV int place(int i, int t, int h) { return 4 * (2 * i + t / 2) + 2 * h + t % 2; }

  struct Sums {
    int all[kLeads<K> ? 16 : 32], lead[kLeads<K> ? 16 : 1];
  };

  // Part is what a lane's columns 16i mean.
  struct Part {
    Four scale, centre;
    DEV Part of(const Scales& s, int i, int q) { return Part{fourOf(s.scale, i, q), ASYM ? fourOf(s.centre, i, q) : Four{}}; }
    DEV float score(const Part& p, int t, int sum, float of) {
      float y = (float)sum * p.scale.x[t];
      return ASYM ? fusedMulAdd(p.centre.x[t], of, y) : y;
    }
  };

  DEV float score(const Sums& s, const Part& p, const Part& lead, const Codes& c, int i, int t, int h) {
    if constexpr (kLeads<K>) {  // half a page at a time
      return Part::score(p, t, s.all[place(i % 2, t, h)], c.sum[h]) + Part::score(lead, t, s.lead[place(i % 2, t, h)], c.lead[h]);
    } else {
      return Part::score(p, t, s.all[place(i, t, h)], c.sum[h]);
    }
  }

  // move raises row h's reference exponent.
  DEV void move(Rows& s, int h, float m) {
    float shrink = exp2Fast(s.m[h] - m);
    s.m[h] = m, s.sum[h] *= shrink;
#pragma unroll
    for (int i = 0; i < D / 8; i++) s.value[i][2 * h] *= shrink, s.value[i][2 * h + 1] *= shrink;
  }

  // operand makes exponents weights, and the weights the operand of the values:
  // word[k][register]. sum is of a lane's weights of a row.
  DEV void operand(float (&sum)[2], const float (&x)[32], u32 (&word)[4][4]) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float w[4];
#pragma unroll
        for (int t = 0; t < 4; t++) w[t] = exp2Fast(x[place(i, t, h)]);
        sum[h] += (w[0] + w[1]) + (w[2] + w[3]);
        word[i][h] = narrow2(w[0], w[1]), word[i][2 + h] = narrow2(w[2], w[3]);
      }
  }

  static constexpr int kAhead = ASYM || kLeads<K> ? 1 : 2;  // parts of 16 tokens whose scales are read before their products have come
  // Page64 is what a lane's two rows make of a page: exponents about its reference.
  struct Page64 {
    float x[32], m[2];
    bool first[2];  // there was no reference yet
  };
  DEV void beginPage(Page64& y, const Rows& s, int token) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      bool sees = token < s.from[h];
      y.first[h] = sees && s.m[h] == kMinusInf;
      y.m[h] = !sees ? -kMinusInf : y.first[h] ? 0 : s.m[h];  // nothing weighs anything under an infinite reference
    }
  }
  // exponents makes products exponents.
  DEV void exponents(Page64& y, const Codes& c, const float (&sum)[32]) {
#pragma unroll
    for (int i = 0; i < 32; i++) y.x[i] = fusedMulAdd(sum[i], c.scale[i / 2 % 2], -y.m[i / 2 % 2]);
  }
  // The same of bytes, parts of 16 tokens from FROM on.
  template <int FROM, int END>
  DEV void exponents(Page64& y, const Codes& c, const Sums& sums, const Part (&ahead)[kAhead], const Operand* o, int q) {
#pragma unroll
    for (int i = FROM; i < END; i++) {
      Part part = i < kAhead ? ahead[i % kAhead] : Part::of(o->coded.key, i, q), lead = kLeads<K> ? Part::of(o->coded.lead, i, q) : Part{};
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) y.x[place(i, t, h)] = fusedMulAdd(score(sums, part, lead, c, i, t, h), c.scale[h], -y.m[h]);
    }
  }

  // weights makes exponents of one page the operand of its values.
  DEV void weights(Rows& s, Page64& y, u32 (&word)[4][4]) {
    float sum[2];
    operand(sum, y.x, word);
    // Weights far above the reference, or none yet: it moves.
    if (laneAny(!(sum[0] + sum[1] < kMost) || y.first[0] || y.first[1])) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float up = kMinusInf;
#pragma unroll
        for (int i = 0; i < 16; i++) up = larger(up, y.x[i / 2 * 4 + 2 * h + i % 2]);
        up = larger(up, laneXor(up, 1));
        up = larger(up, laneXor(up, 2)) - kLift;
        if (!y.first[h] && !(up > 0)) continue;
        move(s, h, y.m[h] + up);
#pragma unroll
        for (int i = 0; i < 16; i++) y.x[i / 2 * 4 + 2 * h + i % 2] -= up;
      }
      operand(sum, y.x, word);
    }
    s.sum[0] += sum[0], s.sum[1] += sum[1];
  }

  template <int I, bool MORE, class S>
  DEV void multiply(S& sum, const Codes& c, GroupOperand codes, GroupOperand keys) {
    if constexpr (I < kHeld) {
      groupSigned<MORE>(sum, c.word[I], groupAlong(keys, 32 * I));
    } else {
      groupSigned<MORE>(sum, groupAlong(codes, 32 * I), groupAlong(keys, 32 * I));
    }
  }
  // multiplyKeys begins the products of a page's keys, or where the leading channels
  // have sums of their own, of half of them.
  DEV void multiplyKeys(Sums& sum, const Codes& c, GroupOperand a, const Operand* o, int half = 0) {
    auto b = groupOperand(o->coded.keys + half * (kTokens / 2 * D));
    if constexpr (kLeads<K>) {
      static_assert(K == 32, "the leading channels are one product");
      multiply<0, false>(sum.lead, c, a, b);
    } else {
      multiply<0, false>(sum.all, c, a, b);
    }
    multiply<1, !kLeads<K>>(sum.all, c, a, b);
    multiply<2, true>(sum.all, c, a, b);
    multiply<3, true>(sum.all, c, a, b);
    groupCommit();
  }
  DEV void multiplyKeys(float (&sum)[32], const Codes& c, const Operand* o) {
    auto b = groupOperand(o->coded.keys);
    groupHalf<false>(sum, c.half[0], b);
#pragma unroll
    for (int d = 1; d < D / 16; d++) groupHalf<true>(sum, c.half[d], groupAlong(b, 32 * d));
    groupCommit();
  }
  DEV void weighValues(Rows& s, const u32 (&word)[4][4], const Operand* o) {
    auto values = groupOperand(o->coded.values);
#pragma unroll
    for (int i = 0; i < 4; i++) groupWeigh<false>(s.value, word[i], groupAlong(values, 32 * i));
    groupCommit();
  }
  // giveBack says that a warp is done with an operand.
  DEV void giveBack(Shared& m, u32 k, int lane) {
    warpSync();
    if (kEachArrives || lane == 0) barrierArrive(&m.empty[k % kSlots]);
  }

  // halves and bytes make the exponents of a page whose keys are such, while the values
  // of the page before are multiplied.
  DEV void halves(Rows& s, Page64& y, const u32 (&word)[4][4], const Codes& c, const Operand* o, const Operand* before, int token) {
    float products[32];
    groupFence(s.value);
    multiplyKeys(products, c, o);
    weighValues(s, word, before);
    beginPage(y, s, token);
    groupWaitFor<1>(products);
    exponents(y, c, products);
    groupWaitFor<0>(s.value);
  }
  DEV void bytes(Rows& s, Page64& y, const u32 (&word)[4][4], const Codes& c, GroupOperand codes, const Operand* o, const Operand* before, int token, int q) {
    Sums sum;
    Part part[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) part[i] = Part::of(o->coded.key, i, q);
    groupFence(s.value);
    multiplyKeys(sum, c, codes, o);
    weighValues(s, word, before);
    beginPage(y, s, token);
    if constexpr (kLeads<K>) {
      groupWaitFor<1>(sum.all, sum.lead);
      exponents<0, 2>(y, c, sum, part, o, q);
      groupFence();
      multiplyKeys(sum, c, codes, o, 1);
      groupWaitFor<0>(s.value, sum.all, sum.lead);
      exponents<2, 4>(y, c, sum, part, o, q);
    } else {
      groupWaitFor<1>(sum.all);
      exponents<0, 4>(y, c, sum, part, o, q);
      groupWaitFor<0>(s.value);
    }
  }

  // coded attends over the coded pages. A page's exponents are computed while its
  // predecessor's values are still multiplied: the first one's predecessor is operand
  // 0, which is none and weighs nothing. Nothing is in flight where it branches.
  DEV void coded(Shared& m, Rows& s, const Codes& c, const Span& span, int group, int lane) {
    if (span.coded == 0) return giveBack(m, 0, lane);
    Page64 y;
    u32 word[4][4] = {};
    lane = (int)keep(lane);
    GroupOperand codes = keepOperand(groupOperand(m.codes[kHalf ? 0 : 64 * group]));
    bool come = false;
    u32 k = 1;
#pragma unroll 1
    for (; k <= (u32)span.coded; k++) {
      Operand *o = &m.slot[k % kSlots], *before = &m.slot[(k > 1 ? k - 1 : 1) % kSlots];
      if (!come) barrierWait(&m.full[k % kSlots], k / kSlots & 1);
      int token = (span.lo + (int)k - 1) * kTokens;
      if constexpr (kHalf) {
        halves(s, y, word, c, o, before, token);
      } else {
        bytes(s, y, word, c, codes, o, before, token, 4 * (lane & 3));
      }
      giveBack(m, k - 1, lane);
      come = k < (u32)span.coded && barrierCame(&m.full[(k + 1) % kSlots], (k + 1) / kSlots & 1);
      weights(s, y, word);
    }
    groupFence(s.value);
    weighValues(s, word, &m.slot[(k - 1) % kSlots]);
    groupWait(s.value);
    giveBack(m, k - 1, lane);
  }

  // exactWeights makes the products of 64 tokens the operand of their values.
  DEV void exactWeights(Rows& s, const PrefillParams& p, float (&x)[32], u32 (&word)[4][4], const int (&position)[2], int token, int q) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float top = kMinusInf;
#pragma unroll
      for (int i = 0; i < 16; i++) {
        int at = token + i / 2 * 8 + 2 * q + i % 2;
        float& y = x[i / 2 * 4 + 2 * h + i % 2];
        if (!(at <= position[h] && (at < p.sinks || at >= s.from[h]))) y = kMinusInf;
        top = larger(top, y);
      }
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      if (top > s.m[h] + 2 * kLift - 1) move(s, h, top - kLift);  // or a weight were more than kMost
      float m = s.m[h] == kMinusInf ? 0 : s.m[h];
#pragma unroll
      for (int i = 0; i < 16; i++) x[i / 2 * 4 + 2 * h + i % 2] -= m;
    }
    float sum[2];
    operand(sum, x, word);
    s.sum[0] += sum[0], s.sum[1] += sum[1];
  }

  DEV void exact(Shared& m, Rows& s, const PrefillParams& p, const Span& span, const int (&position)[2], int group, int lane) {
#pragma unroll 1
    for (int i = 0; i < span.exact; i++) {
      u32 k = (u32)(span.coded + 1 + i);
      Operand* o = &m.slot[k % kSlots];
      barrierWait(&m.full[k % kSlots], k / kSlots & 1);
      float x[32];
      groupFence(s.value);
      groupHalf<false>(x, groupOperand(m.queries[group][0]), groupOperand(o->exact.keys[0]));
#pragma unroll
      for (int d = 1; d < D / 16; d++) groupHalf<true>(x, groupOperand(m.queries[group][d / 4] + 32 * (d % 4)), groupOperand(o->exact.keys[d / 4] + 32 * (d % 4)));
      groupCommit();
      groupWait(x);
      u32 word[4][4];
      exactWeights(s, p, x, word, position, Span::page(span, i) * kTokens, lane & 3);
      groupFence(s.value);
#pragma unroll
      for (int d = 0; d < 4; d++) groupWeigh<true>(s.value, word[d], groupColumns(o->exact.values[0] + 16 * kRow * d, kTokens * kRow));
      groupCommit();
      groupWait(s.value);
      giveBack(m, k, lane);
    }
  }

  // position is that of a lane's row h, -1 beyond the last.
  DEV int position(const PrefillParams& p, int first, int blockLast, int lane, int h) {
    int v = first + lane / 4 + 8 * h;
    return v <= blockLast ? p.position + v / p.group : -1;
  }

  DEV void store(const Rows& s, const PrefillParams& p, int first, int blockLast, int lane) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float sum = s.sum[h];
      sum += laneXor(sum, 1);
      sum += laneXor(sum, 2);
      int v = first + lane / 4 + 8 * h;
      if (v > blockLast) continue;
      float inv = sum > 0 ? 1 / sum : 0;
      float* out = p.out + (Plain::vector(p, v) - p.q) + 2 * (lane & 3);
#pragma unroll
      for (int i = 0; i < D / 8; i++) *(Pair32*)(out + 8 * i) = Pair32{asBits(s.value[i][2 * h] * inv), asBits(s.value[i][2 * h + 1] * inv)};
    }
  }

  DEV void attend(Shared& m, const PrefillParams& p, const Span& span, int blockFirst, int blockLast, int thread) {
    int warp = thread >> 5, lane = thread & 31, group = warp / 4, first = blockFirst + 16 * warp;
    Rows s;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int at = position(p, first, blockLast, lane, h);
      s.from[h] = at < 0 ? 0 : Plain::from(p, at);
      s.m[h] = kMinusInf, s.sum[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
    Codes c;
    loadQueries(c, m.queries[group][0], m.codes[kHalf ? 0 : 64 * group], p, first, blockLast, warp % 4 * 16, lane);
    operandFence();
    someSync(1 + group, 128);
    coded(m, s, c, span, group, lane);
    int at[2] = {position(p, first, blockLast, lane, 0), position(p, first, blockLast, lane, 1)};
    exact(m, s, p, span, at, group, lane);
    store(s, p, first, blockLast, lane);
  }

  DEV void run(const PrefillParams& p) {
    SHARED(memory);
    Shared& m = *(Shared*)memory;
    if (threadIdx.x == 0) {
      constexpr u32 kFull = kEachArrives ? 128 : 1, kEmpty = (kEachArrives ? 128 : 4) * kGroups;
      for (int i = 0; i < kSlots; i++) barrierInit(&m.full[i], kFull), barrierInit(&m.empty[i], kEmpty);
      for (int i = 0; i < kStages; i++) barrierInit(&m.come[i], 1);
      barrierFence();
      for (u32 i = 0; i < kFull; i++) barrierArrive(&m.full[0]);  // operand 0 is none
    }
    blockSync();
    int blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1;
    Span span = Span::of(p, blockFirst, blockLast);
    if (threadIdx.x >= 128 * kGroups) {
      fewerRegisters<(kSpreaders == 2 ? 48 : 56)>();
      int thread = threadIdx.x - 128 * kGroups;
      Base::produce(m, p, span, kSpreaders > 1 ? thread / 128 : 0, kSpreaders > 1 ? thread % 128 : thread);
    } else {
      moreRegisters<(kSpreaders == 2 ? 128 : 152)>();
      attend(m, p, span, blockFirst, blockLast, threadIdx.x);
    }
  }
};
