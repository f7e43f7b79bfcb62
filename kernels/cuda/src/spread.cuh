// The operands of Wide's products, and the warpgroup that makes them: it copies pages
// of codes and spreads them, and copies pages of float16. 128 channels.
#pragma once
#include "prefill.cuh"

template <int K, int V, bool ASYM>
struct Spread {
  static constexpr int D = 128;
  using P = Page<D, K, V, ASYM>;
  using Plain = Prefill<D, K, V, ASYM>;
  static_assert(V == kTwoBits || V == kFourBits, "one or two planes, and of K leading channels");
  static constexpr int kGroups = 3, kThreads = 128 * (kGroups + 1), kVectors = 64 * kGroups;
  static constexpr int kSlots = 4, kStages = 3;  // operands; coded pages on their way
  static constexpr int kLeadWords = Plain::kLeadWords;

  // Operand is what the products of 64 tokens read. Rows are 128 bytes, whose pieces
  // of 16 are turned by the row.
  struct Scales {
    float scale[kTokens], centre[kTokens];  // in the order of Spread::at; centre: asymmetric
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

  // made meets when operand k is made, and publish, of thread 0 then, says that it is.
  DEV void made(Shared& m, u32 k) {
    operandFence();
    if (kEachArrives) barrierArrive(&m.full[k % kSlots]);
    someSync(1, 128);
  }
  DEV void publish(Shared& m, u32 k) {
    if (!kEachArrives) barrierArrive(&m.full[k % kSlots]);
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
      made(m, at);
      if (thread == 0) {
        publish(m, at);
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
      made(m, at - 1);
      if (thread == 0) publish(m, at - 1);
    }
  }
};
