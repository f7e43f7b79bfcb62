// Prompt attention with Hopper's warpgroup products (sm_90a). 128 channels.
//
// A block is four warpgroups that never meet. One copies pages and spreads them into
// a ring of operands; each of the others attends for 64 query vectors, with the
// tensor cores reading the operands in shared memory. While one turns sums into
// weights the tensor cores have the others' products.
//
// Queries and codes of K are multiplied as in prefill.cuh. Weights and values are
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
#include "prefill.cuh"

template <int K, int V, bool ASYM>
struct Wide {
  static constexpr int D = 128;
  using P = Page<D, K, V, ASYM>;
  using Plain = Prefill<D, K, V, ASYM>;
  static_assert(V == kTwoBits || V == kFourBits, "one or two planes, and of K leading channels");
  static constexpr int kGroups = 3, kThreads = 128 * (kGroups + 1), kVectors = 64 * kGroups;
  static constexpr int kSlots = 4, kStages = 3;  // operands; coded pages on their way
  static constexpr int kLeadWords = Plain::kLeadWords;
  static constexpr int kHeld = kLeads<K> ? 0 : ASYM ? 1 : 2;  // of a warp's coded queries, 32 channels each: in registers; the others in shared memory
  static constexpr float kLift = 8;         // exponents of the largest weight when the reference moves
  static constexpr float kMost = 1 << 15;   // no weight is larger: a float16 has room for twice as much

  // Operand is what the products of 64 tokens read. Rows are 128 bytes, whose pieces
  // of 16 are turned by the row.
  struct Scales {
    float scale[kTokens], centre[kTokens];  // in the order of Wide::at; centre: asymmetric
  };
  union Operand {
    struct {
      u8 keys[kTokens * D];        // a row a token: signed bytes
      u8 values[D * kTokens * 2];  // a row a channel: float16 of 64 tokens
      Scales key, lead;
    } coded;
    struct {
      u8 keys[2][kTokens * D];  // a row a token: 64 channels in float16, and the other 64
      u8 values[2][kTokens * D];
    } exact;
  };
  static_assert(sizeof(Operand) == 4 * kTokens * D, "operands begin at multiples of 1,024");
  struct Shared {
    Operand slot[kSlots];
    u8 queries[kGroups][2][64 * D];  // float16, as exact keys
    u8 codes[kGroups][64 * D];       // as keys
    alignas(16) u8 stage[kStages][P::bytes + (K == kPlan ? P::plane : 0)];
    u64 full[kSlots], empty[kSlots], come[kStages];
  };

  struct Rows {
    int from[2];  // coded tokens end here; 0 beyond the last row
    float m[2], sum[2];
    float value[D / 8][4];
  };
  struct Codes {
    u32 word[kHeld + 1][4];
    float scale[2];
    float sum[2], lead[2];  // asymmetric: of the codes, of all channels, or but the leading ones, and of those
  };

  // Span is what the block reads: coded pages from page lo on, and exact ones, some
  // from the text's beginning, then from page recent on.
  struct Span {
    int lo, coded, sinks, recent, exact, last;
    DEV Span of(const PrefillParams& p, int blockFirst, int blockLast) {
      Span s;
      s.last = p.position + blockLast / p.group;
      int begin = Plain::from(p, p.position + blockFirst / p.group);
      s.lo = p.sinks / kTokens, s.coded = max(Plain::from(p, s.last) / kTokens - s.lo, 0);
      s.sinks = begin > 0 ? s.lo : 0, s.recent = begin / kTokens;
      s.exact = s.sinks + s.last / kTokens - s.recent + 1;
      return s;
    }
    DEV int page(const Span& s, int i) { return i < s.sinks ? i : s.recent + i - s.sinks; }
  };

  // column is a token's, at its place among the scales: a lane reads four at once.
  DEV int column(int t) { return (t & ~3) | (t >> 1 & 1) | (t & 1) << 1; }
  DEV int at(int column) { return column / 16 * 16 + column % 8 / 2 * 4 + column / 8 % 2 * 2 + column % 2; }

  // --- the warpgroup that spreads

  // half is two float16 of codes that lie at bit 2i of two halves of a word, less
  // what is taken off: they are the last bits of 2^(10-2i) + code.
  DEV constexpr u32 twoHalves(int i, float more) { return (u32)((25 - 2 * i) << 10 | (int)(more * (1 << 2 * i))) * 0x10001u; }
  // Masks are kept in registers: an instruction takes one constant, and masks twice.
  struct Masks {
    u32 base[4], flip2, flip4;
    DEV Masks of(u32 zero) {
      return Masks{{keep(twoHalves(0, 0) ^ zero), keep(twoHalves(1, 0) ^ zero), keep(twoHalves(2, 0) ^ zero), keep(twoHalves(3, 0) ^ zero)}, keep(0xa0a0a0a0u ^ zero), keep(0x88888888u ^ zero)};
    }
  };
  template <int I>
  DEV u32 levels(const Masks& m, u32 top, u32 low) {
    constexpr float kMiddle = ASYM ? 0 : Plain::kMiddleV;
    u32 x;
    if (V == kFourBits) {
      x = (top & 0x000c000cu << 2 * I) | ((low & 0x00030003u << 2 * I) | m.base[I]);
    } else {
      x = (top & 0x00030003u << 2 * I) | m.base[I];
    }
    return addHalves(x, twoHalves(I, kMiddle) | 0x80008000u);
  }
  DEV u32 value(u32 level, u32 scale, u32 zero) { return ASYM ? mulAddHalves(level, scale, zero) : mulHalves(level, scale); }

  // four is what a word of a quad stands for, bit pair I: tokens 0 and 2, then 1 and 3.
  template <int I>
  DEV Pair32 four(const Masks& m, u32 top, u32 low, Pair32 scale, Pair32 zero) {
    // 1024 + 1.5 is no float16: bit pair 0 is read as bit pair 1
    constexpr int kUp = I == 0 && !ASYM ? 2 : 0, kTop = kUp + (V == kFourBits ? 2 : 0), kAt = I + kUp / 2;
    return Pair32{value(levels<kAt>(m, top << kTop, low << kUp), scale.x, zero.x), value(levels<kAt>(m, top >> (8 - kTop), low >> (8 - kUp)), scale.y, zero.y)};
  }

  // A piece of a row is what eight tokens have of a channel.
  template <int I>
  DEV void spreadPair(const Masks& m, u8* piece, const u32 (&top)[2], const u32 (&low)[2], const Pair32 (&scale)[2], const Pair32 (&zero)[2]) {
    Pair32 a = four<I>(m, top[0], low[0], scale[0], zero[0]), b = four<I>(m, top[1], low[1], scale[1], zero[1]);
    *(Quad32*)(piece + 8 * I * (2 * kTokens)) = Quad32{a.x, a.y, b.x, b.y};
  }

  // pairs is two quads of float16: tokens 0 and 2, then 1 and 3.
  DEV void pairs(Pair32 (&to)[2], const u8* from) {
    Quad32 x = load<Quad32>(from);
    to[0] = Pair32{permute<0x5410>(x.x, x.y), permute<0x7632>(x.x, x.y)};
    to[1] = Pair32{permute<0x5410>(x.z, x.w), permute<0x7632>(x.z, x.w)};
  }

  // EightValues is a lane's part of eight tokens of V: a word of both quads.
  struct EightValues {
    u32 top[2], low[2];
    Pair32 scale[2], zero[2];
    DEV void read(EightValues& v, const u8* page, int eight, int lane) {
      const u32* from = (const u32*)(page + P::vTop) + eight * (D / 2) + lane;
      v.top[0] = from[0], v.top[1] = from[D / 4];
      v.low[0] = V == kFourBits ? from[P::plane / 4] : 0, v.low[1] = V == kFourBits ? from[P::plane / 4 + D / 4] : 0;
      pairs(v.scale, page + P::vScale + 16 * eight);
      if (ASYM) {
        pairs(v.zero, page + P::vScale + P::params + 16 * eight);
      } else {
        v.zero[0] = v.zero[1] = Pair32{0, 0};
      }
    }
    DEV void store(const EightValues& v, const Masks& m, u8* values, int eight, int lane) {
      u8* piece = values + (lane / 8 * 32 + lane % 8) * (2 * kTokens) + (eight ^ lane % 8) * 16;
      spreadPair<0>(m, piece, v.top, v.low, v.scale, v.zero);
      spreadPair<1>(m, piece, v.top, v.low, v.scale, v.zero);
      spreadPair<2>(m, piece, v.top, v.low, v.scale, v.zero);
      spreadPair<3>(m, piece, v.top, v.low, v.scale, v.zero);
    }
  };

  // signedBytes is bit pair I of a word of K as levels about their middle: 32 or 8
  // times odd numbers, which want no sign extended.
  static constexpr float kUnit2 = 64, kUnit4 = 16;  // a level's step
  template <int I>
  DEV u32 signedBytes(u32 top, u32 flip) { return ((top << (6 - 2 * I)) & 0xc0c0c0c0u) ^ flip; }
  template <int I>
  DEV u32 signedBytes(u32 top, u32 low, u32 flip) {
    u32 l = I < 2 ? low << (4 - 2 * I) : low >> (2 * I - 4);
    return ((top << (6 - 2 * I)) & 0xc0c0c0c0u) ^ ((l & 0x30303030u) ^ flip);
  }
  DEV Quad32 keyRow(const Masks& m, u32 top) { return Quad32{signedBytes<0>(top, m.flip2), signedBytes<1>(top, m.flip2), signedBytes<2>(top, m.flip2), signedBytes<3>(top, m.flip2)}; }
  DEV Quad32 keyRow(const Masks& m, u32 top, u32 low) {
    return Quad32{signedBytes<0>(top, low, m.flip4), signedBytes<1>(top, low, m.flip4), signedBytes<2>(top, low, m.flip4), signedBytes<3>(top, low, m.flip4)};
  }

  // Leads is what leads in a page of K: words of a token that have two planes, and
  // bytes of the second planes that are counted at run time.
  struct Leads {
    int words, bytes;
    DEV Leads of(const PrefillParams& p) { return K == kPlan ? Leads{leadWords<D>(p.lowRows[0]), rowsBytes<D>(p.lowRows[0])} : Leads{kLeadWords, 0}; }
  };
  static constexpr bool kAnyLead = kLeads<K> || K == kPlan;

  // KeyWords is a thread's part of a page's K: a word of 16 channels of four tokens.
  struct KeyWords {
    u32 top[4], low[4];
    DEV void read(KeyWords& k, const u8* page, const Leads& l, int thread) {
      int w = thread / 8 % 8, eight = thread / 64;
      bool leads = kAnyLead && w < l.words;
      int rest = leads ? 0 : l.words, words = leads ? l.words : D / 16 - l.words;
      const u8 *top = page + P::kTop + (leads ? 0 : 4 * kTokens * l.words), *low = page + P::kLow;
#pragma unroll
      for (int s = 0; s < 4; s++) {
        int i = ((eight + 2 * s) * words + w - rest) * 8 + thread % 8;
        k.top[s] = ((const u32*)top)[i];
        k.low[s] = K == kFourBits || leads ? ((const u32*)low)[i] : 0;
      }
    }
    DEV void store(const KeyWords& k, u8* keys, const Masks& m, const Leads& l, int thread) {
      int w = thread / 8 % 8, n = column(thread / 64 * 8 + thread % 8);
      u8* row = keys + n * D + (w ^ (n & 7)) * 16;
#pragma unroll
      for (int s = 0; s < 4; s++) *(Quad32*)(row + 16 * s * D) = K == kFourBits || (kAnyLead && w < l.words) ? keyRow(m, k.top[s], k.low[s]) : keyRow(m, k.top[s]);
    }
  };

  // spreadScales does a token of K.
  DEV void spreadScales(Scales& s, u16 scale, u16 zero, int t, float middle, float unit) {
    int i = at(column(t));
    s.scale[i] = widen(scale) * (1 / unit);  // exact
    if (ASYM) s.centre[i] = widen(zero) + middle * widen(scale);
  }

  // spread reads first and stores then: the compiler does not know that a page and
  // an operand have nothing in common.
  DEV void spread(Operand* o, const Masks& m, const u8* page, const Leads& l, int thread) {
    int warp = thread / 32, lane = thread % 32, t = thread % kTokens;
    KeyWords keys;
    KeyWords::read(keys, page, l, thread);
    EightValues values[2];
    EightValues::read(values[0], page + l.bytes, 2 * warp, lane);
    bool lead = kLeads<K> && thread >= kTokens;
    const u16* params = (const u16*)(page + P::kScale + (kLeads<K> && !lead ? P::perSegment : 0)) + t;
    u16 scale = params[0], zero = ASYM ? params[kTokens] : 0;
    KeyWords::store(keys, o->coded.keys, m, l, thread);
    EightValues::read(values[1], page + l.bytes, 2 * warp + 1, lane);
    EightValues::store(values[0], m, o->coded.values, 2 * warp, lane);
    EightValues::store(values[1], m, o->coded.values, 2 * warp + 1, lane);
    if (lead) {
      spreadScales(o->coded.lead, scale, zero, t, 7.5f, kUnit4);
    } else if (thread < kTokens) {
      // as planned, what leads has a quarter of the scale, unless it is all there is
      bool four = K == kFourBits || (K == kPlan && l.words == D / 16);
      spreadScales(o->coded.key, scale, zero, t, Plain::kMiddleK, four ? kUnit4 : kUnit2);
    }
  }

  // copyExact starts the copy of a page of float16; beyond the last token zeros.
  DEV void copyExact(Operand* o, const PrefillParams& p, int page, int last, int thread) {
    const u8* from = (const u8*)(p.exact[page] + p.exactLayer) + 2 * blockIdx.y * (kTokens * D * 2);
    u8* to = (u8*)o;
    int most = min(last - page * kTokens, kTokens - 1);
#pragma unroll 4
    for (int i = thread; i < 4 * kTokens * D / 16; i += 128) {
      int half = i / (kTokens * 16), t = i / 16 % kTokens, piece = i % 16;
      copy16Or0(to + (2 * half + piece / 8) * (kTokens * D) + t * D + ((piece ^ t) & 7) * 16, from + 16 * i, t <= most);
    }
    copyCommit();
  }

  DEV void produce(Shared& m, const PrefillParams& p, const Span& s, int thread) {
    const Leads leads = Leads::of(p);
    const int bytes = P::bytes + leads.bytes;
    u64 offset = p.codedLayer + (u64)blockIdx.y * bytes;
    auto start = [&](int k, u64 page) {
      barrierExpect(&m.come[k % kStages], bytes);
      copyBulk(m.stage[k % kStages], (const u8*)(page + offset), bytes, &m.come[k % kStages]);
    };
    auto address = [&](int k) { return k < s.coded ? p.coded[s.lo + k] : 0; };
    if (thread == 0)
      for (int k = 0; k < min(kStages, s.coded); k++) start(k, p.coded[s.lo + k]);
    u64 next = address(kStages);
    Masks masks = Masks::of((u32)p.rows >> 31);
    u32 at = 1;  // operand 0 is none
#pragma unroll 1
    for (int k = 0; k < s.coded; k++, at++) {
      u64 page = next;
      next = address(k + kStages + 1);
      barrierWait(&m.come[k % kStages], k / kStages & 1);
      barrierWait(&m.empty[at % kSlots], ~(at / kSlots) & 1);
      spread(&m.slot[at % kSlots], masks, m.stage[k % kStages], leads, thread);
      operandFence();
      someSync(1, 128);
      if (thread == 0) {
        barrierArrive(&m.full[at % kSlots]);
        if (k + kStages < s.coded) start(k + kStages, page);
      }
    }
#pragma unroll 1
    for (int i = 0; i <= s.exact; i++, at++) {
      if (i < s.exact) {
        barrierWait(&m.empty[at % kSlots], ~(at / kSlots) & 1);
        copyExact(&m.slot[at % kSlots], p, Span::page(s, i), s.last, thread);
      } else {
        copyCommit();
      }
      if (i == 0) continue;
      copyWait<1>();
      operandFence();
      someSync(1, 128);
      if (thread == 0) barrierArrive(&m.full[(at - 1) % kSlots]);
    }
  }

  // --- the warpgroups that attend

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
        *(Pair32*)(operand + at / 8 * (64 * D) + (row + r + 8 * h) * D + ((at ^ r) & 7) * 16 + q % 2 * 8) =
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
        u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
        if (i / 2 < kHeld) {
          c.word[i / 2 % (kHeld + 1)][h + 2 * (i % 2)] = w;
        } else {
          *(u32*)(codes + (row + r + 8 * h) * D + (i ^ r) * 16 + 4 * q) = w;
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
  // exponents does parts of 16 tokens from FROM on.
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
  DEV void weighValues(Rows& s, const u32 (&word)[4][4], const Operand* o) {
    auto values = groupOperand(o->coded.values);
#pragma unroll
    for (int i = 0; i < 4; i++) groupWeigh<false>(s.value, word[i], groupAlong(values, 32 * i));
    groupCommit();
  }
  // giveBack says that a warp is done with an operand.
  DEV void giveBack(Shared& m, u32 k, int lane) {
    warpSync();
    if (lane == 0) barrierArrive(&m.empty[k % kSlots]);
  }

  // coded attends over the coded pages. A page's exponents are computed while its
  // predecessor's values are still multiplied: the first one's predecessor is operand
  // 0, which is none and weighs nothing. Nothing is in flight where it branches.
  DEV void coded(Shared& m, Rows& s, const Codes& c, const Span& span, int group, int lane) {
    if (span.coded == 0) return giveBack(m, 0, lane);
    Sums sum;
    Page64 y;
    u32 word[4][4] = {};
    lane = (int)keep(lane);
    GroupOperand codes = keepOperand(groupOperand(m.codes[group]));
    bool come = false;
    u32 k = 1;
#pragma unroll 1
    for (; k <= (u32)span.coded; k++) {
      Operand* o = &m.slot[k % kSlots];
      if (!come) barrierWait(&m.full[k % kSlots], k / kSlots & 1);
      Part part[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; i++) part[i] = Part::of(o->coded.key, i, 4 * (lane & 3));
      groupFence(s.value);
      multiplyKeys(sum, c, codes, o);
      weighValues(s, word, &m.slot[(k > 1 ? k - 1 : 1) % kSlots]);
      beginPage(y, s, (span.lo + (int)k - 1) * kTokens);
      if constexpr (kLeads<K>) {
        groupWaitFor<1>(sum.all, sum.lead);
        exponents<0, 2>(y, c, sum, part, o, 4 * (lane & 3));
        groupFence();
        multiplyKeys(sum, c, codes, o, 1);
        groupWaitFor<0>(s.value, sum.all, sum.lead);
        exponents<2, 4>(y, c, sum, part, o, 4 * (lane & 3));
      } else {
        groupWaitFor<1>(sum.all);
        exponents<0, 4>(y, c, sum, part, o, 4 * (lane & 3));
        groupWaitFor<0>(s.value);
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
      for (int d = 0; d < 4; d++) groupWeigh<true>(s.value, word[d], groupColumns(o->exact.values[0] + 16 * D * d, kTokens * D));
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
    loadQueries(c, m.queries[group][0], m.codes[group], p, first, blockLast, warp % 4 * 16, lane);
    operandFence();
    someSync(2 + group, 128);
    coded(m, s, c, span, group, lane);
    int at[2] = {position(p, first, blockLast, lane, 0), position(p, first, blockLast, lane, 1)};
    exact(m, s, p, span, at, group, lane);
    store(s, p, first, blockLast, lane);
  }

  DEV void run(const PrefillParams& p) {
    SHARED(memory);
    Shared& m = *(Shared*)memory;
    if (threadIdx.x == 0) {
      for (int i = 0; i < kSlots; i++) barrierInit(&m.full[i], 1), barrierInit(&m.empty[i], 4 * kGroups);
      for (int i = 0; i < kStages; i++) barrierInit(&m.come[i], 1);
      barrierFence();
      barrierArrive(&m.full[0]);  // operand 0 is none
    }
    blockSync();
    int blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1;
    Span span = Span::of(p, blockFirst, blockLast);
    if (threadIdx.x >= 128 * kGroups) {
      fewerRegisters<56>();
      produce(m, p, span, threadIdx.x - 128 * kGroups);
    } else {
      moreRegisters<152>();
      attend(m, p, span, blockFirst, blockLast, threadIdx.x);
    }
  }
};
