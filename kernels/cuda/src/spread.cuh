// The operands of Wide's products, and the warpgroups that make them: they copy pages
// of codes and spread them, and copy pages of float16.
#pragma once
#include "prefill.cuh"

// Columns is what the columns of a page's scores are multiplied by where its keys are
// bytes, in the order of Spread::at; centre: asymmetric.
struct Columns {
  float scale[kTokens], centre[kTokens];
};
// CodedOperand is what the products of a coded page read: of K a row a token, signed
// bytes or float16, of V a row a channel, float16 of 64 tokens.
template <int D, bool HALF>
struct CodedOperand {
  u8 keys[kTokens * D];
  u8 values[D * kTokens * 2];
  Columns key, lead;
};
template <int D>
struct CodedOperand<D, true> {
  u8 keys[kTokens * D * 2];
  u8 values[D * kTokens * 2];
};

template <int D, int K, int V, bool ASYM>
struct Spread {
  using P = Page<D, K, V, ASYM>;
  using Plain = Prefill<D, K, V, ASYM>;
  static_assert(V == kTwoBits || V == kFourBits, "one or two planes, and of K leading channels");
  static constexpr bool kHalf = D == 64;  // keys are float16, and no score is converted or wants its token's scale
  static constexpr int kGroups = 3, kSpreaders = D == 64 ? 2 : 1, kThreads = 128 * (kGroups + kSpreaders), kVectors = 64 * kGroups;
  static constexpr int kSlots = D == 64 ? 8 : 4, kStages = D == 64 ? 4 : 3;  // operands; coded pages on their way
  static constexpr int kLeadWords = Plain::kLeadWords;

  // Operand is what the products of 64 tokens read. Rows are 128 bytes, whose pieces
  // of 16 are turned by the row.
  static constexpr int kRow = 128, kHalves = D / 64;
  using Scales = Columns;
  union Operand {
    CodedOperand<D, kHalf> coded;
    struct {
      u8 keys[kHalves][kTokens * kRow];  // a row a token: 64 channels in float16, and the other 64
      u8 values[kHalves][kTokens * kRow];
    } exact;
  };
  static_assert(sizeof(Operand) == 4 * kTokens * D, "operands begin at multiples of 1,024");
  struct Shared {
    Operand slot[kSlots];
    u8 queries[kGroups][kHalves][64 * kRow];  // float16, as exact keys
    u8 codes[kHalf ? 1 : 64 * kGroups][kRow];  // as keys that are bytes
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
  // FOUR: of four bits, or of two. less is (1, 1) where the middle is 1.5 less.
  template <int I, bool FOUR>
  DEV u32 levels(const Masks& m, u32 top, u32 low, u32 less) {
    constexpr float kMiddle = ASYM ? 0 : FOUR ? 7.5f : 1.5f;
    u32 x;
    if (FOUR) {
      x = (top & 0x000c000cu << 2 * I) | ((low & 0x00030003u << 2 * I) | m.base[I]);
    } else {
      x = (top & 0x00030003u << 2 * I) | m.base[I];
    }
    return addHalves(x, (twoHalves(I, kMiddle) | 0x80008000u) - less * (3u << 2 * I >> 1));
  }
  DEV u32 value(u32 level, u32 scale, u32 zero) { return ASYM ? mulAddHalves(level, scale, zero) : mulHalves(level, scale); }

  // four is what a word of a quad stands for, bit pair I: tokens 0 and 2, then 1 and 3.
  template <int I, bool FOUR>
  DEV Pair32 four(const Masks& m, u32 top, u32 low, Pair32 scale, Pair32 zero, u32 less = 0) {
    // 1024 + 1.5 is no float16: bit pair 0 is read as bit pair 1
    constexpr int kUp = I == 0 && !ASYM ? 2 : 0, kTop = kUp + (FOUR ? 2 : 0), kAt = I + kUp / 2;
    return Pair32{value(levels<kAt, FOUR>(m, top << kTop, low << kUp, less), scale.x, zero.x), value(levels<kAt, FOUR>(m, top >> (8 - kTop), low >> (8 - kUp), less), scale.y, zero.y)};
  }

  // A piece of a row is what eight tokens have of a channel.
  template <int I>
  DEV void spreadPair(const Masks& m, u8* piece, const u32 (&top)[2], const u32 (&low)[2], const Pair32 (&scale)[2], const Pair32 (&zero)[2]) {
    constexpr bool kFour = V == kFourBits;
    Pair32 a = four<I, kFour>(m, top[0], low[0], scale[0], zero[0]), b = four<I, kFour>(m, top[1], low[1], scale[1], zero[1]);
    *(Quad32*)(piece + 8 * I * kRow) = Quad32{a.x, a.y, b.x, b.y};
  }

  // pairs is two quads of float16: tokens 0 and 2, then 1 and 3.
  DEV void pairs(Pair32 (&to)[2], const u8* from) {
    Quad32 x = load<Quad32>(from);
    to[0] = Pair32{permute<0x5410>(x.x, x.y), permute<0x7632>(x.x, x.y)};
    to[1] = Pair32{permute<0x5410>(x.z, x.w), permute<0x7632>(x.z, x.w)};
  }

  // EightValues is a thread's part of eight tokens of V: a word of both quads.
  struct EightValues {
    u32 top[2], low[2];
    Pair32 scale[2], zero[2];
    DEV void read(EightValues& v, const u8* page, int eight, int word) {
      const u32* from = (const u32*)(page + P::vTop) + eight * (D / 2) + word;
      v.top[0] = from[0], v.top[1] = from[D / 4];
      v.low[0] = V == kFourBits ? from[P::plane / 4] : 0, v.low[1] = V == kFourBits ? from[P::plane / 4 + D / 4] : 0;
      pairs(v.scale, page + P::vScale + 16 * eight);
      if (ASYM) {
        pairs(v.zero, page + P::vScale + P::params + 16 * eight);
      } else {
        v.zero[0] = v.zero[1] = Pair32{0, 0};
      }
    }
    DEV void store(const EightValues& v, const Masks& m, u8* values, int eight, int word) {
      u8* piece = values + (word / 8 * 32 + word % 8) * kRow + (eight ^ word % 8) * 16;
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

  // KeyWords is a thread's part of a page's K: a word of 16 channels of some tokens, so
  // many apart.
  struct KeyWords {
    static constexpr int kWords = D / 16, kApart = 128 / kWords, kEach = kTokens / kApart;
    u32 top[kEach], low[kEach];
    DEV int word(int thread) { return thread / 8 % kWords; }
    DEV int token(int thread) { return thread / (8 * kWords) * 8 + thread % 8; }  // the first one
    DEV bool leads(const Leads& l, int thread) { return kAnyLead && word(thread) < l.words; }
    DEV void read(KeyWords& k, const u8* page, const Leads& l, int thread) {
      int w = word(thread), eight = thread / (8 * kWords);
      bool leads = KeyWords::leads(l, thread);
      int rest = leads ? 0 : l.words, words = leads ? l.words : kWords - l.words;
      const u8 *top = page + P::kTop + (leads ? 0 : 4 * kTokens * l.words), *low = page + P::kLow;
#pragma unroll
      for (int s = 0; s < kEach; s++) {
        int i = ((eight + kApart / 8 * s) * words + w - rest) * 8 + thread % 8;
        k.top[s] = ((const u32*)top)[i];
        k.low[s] = K == kFourBits || leads ? ((const u32*)low)[i] : 0;
      }
    }
    // store is of bytes.
    DEV void store(const KeyWords& k, u8* keys, const Masks& m, const Leads& l, int thread) {
      int w = word(thread), n = column(token(thread));
      u8* row = keys + n * kRow + (w ^ (n & 7)) * 16;
#pragma unroll
      for (int s = 0; s < kEach; s++) *(Quad32*)(row + kApart * s * kRow) = K == kFourBits || leads(l, thread) ? keyRow(m, k.top[s], k.low[s]) : keyRow(m, k.top[s]);
    }
  };

  // KeyHalves is what makes a thread's words of K float16: the scales and zeros of its
  // tokens. Where some words have a second plane those that have none are four bits as
  // well, of a quarter of their scale.
  struct KeyHalves {
    static constexpr bool kFour = K != kTwoBits;
    u16 scale[KeyWords::kEach], zero[KeyWords::kEach];
    DEV void read(KeyHalves& k, const u8* page, const Leads& l, int thread) {
      const u16* from = (const u16*)(page + P::kScale + (kLeads<K> && !KeyWords::leads(l, thread) ? P::perSegment : 0)) + KeyWords::token(thread);
#pragma unroll
      for (int s = 0; s < KeyWords::kEach; s++) k.scale[s] = from[KeyWords::kApart * s], k.zero[s] = ASYM ? from[KeyWords::kApart * s + kTokens] : 0;
    }
    // store puts channels 0 and 2 of each four of a word into its row's first piece, and
    // 1 and 3 into the next one.
    DEV void store(const KeyHalves& h, const KeyWords& k, u8* keys, const Masks& m, const Leads& l, int thread) {
      int w = KeyWords::word(thread), n = column(KeyWords::token(thread));
      // as planned, what leads has a quarter of the scale too, unless it is all there is
      bool leads = KeyWords::leads(l, thread), quarter = K == kPlan ? l.words < KeyWords::kWords : kLeads<K> && !leads;
      u32 less = kAnyLead && !ASYM && !leads ? 0x00010001u : 0;
#pragma unroll
      for (int s = 0; s < KeyWords::kEach; s++) {
        u32 top = k.top[s], low = k.low[s], x = permute<0x1010>(h.scale[s], 0), z = permute<0x1010>(h.zero[s], 0);
        if (quarter) x = mulHalves(x, 0x34003400u);
        Pair32 scale = {x, x}, zero = {z, z};
        Pair32 a = four<0, kFour>(m, top, low, scale, zero, less), b = four<1, kFour>(m, top, low, scale, zero, less);
        Pair32 c = four<2, kFour>(m, top, low, scale, zero, less), d = four<3, kFour>(m, top, low, scale, zero, less);
        u8* row = keys + (n + KeyWords::kApart * s) * kRow;
        *(Quad32*)(row + (2 * w ^ (n & 7)) * 16) = Quad32{a.x, b.x, c.x, d.x};
        *(Quad32*)(row + ((2 * w + 1) ^ (n & 7)) * 16) = Quad32{a.y, b.y, c.y, d.y};
      }
    }
  };

  // KeyColumns is a thread's part of the scales of bytes.
  struct KeyColumns {
    u16 scale, zero;
    DEV bool leads(int thread) { return kLeads<K> && thread >= kTokens; }
    DEV void read(KeyColumns& k, const u8* page, int thread) {
      const u16* from = (const u16*)(page + P::kScale + (kLeads<K> && !leads(thread) ? P::perSegment : 0)) + thread % kTokens;
      k.scale = from[0], k.zero = ASYM ? from[kTokens] : 0;
    }
    DEV void store(const KeyColumns& k, Operand* o, const Leads& l, int thread) {
      int t = thread % kTokens;
      if (leads(thread)) {
        spreadScales(o->coded.lead, k.scale, k.zero, t, 7.5f, kUnit4);
      } else if (thread < kTokens) {
        // as planned, what leads has a quarter of the scale, unless it is all there is
        bool four = K == kFourBits || (K == kPlan && l.words == D / 16);
        spreadScales(o->coded.key, k.scale, k.zero, t, Plain::kMiddleK, four ? kUnit4 : kUnit2);
      }
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
    int eight = thread / (D / 4) * kHalves, word = thread % (D / 4);
    KeyWords keys;
    KeyWords::read(keys, page, l, thread);
    EightValues values[kHalves];
    EightValues::read(values[0], page + l.bytes, eight, word);
    if constexpr (kHalf) {
      KeyHalves halves;
      KeyHalves::read(halves, page, l, thread);
      KeyHalves::store(halves, keys, o->coded.keys, m, l, thread);
      EightValues::store(values[0], m, o->coded.values, eight, word);
    } else {
      KeyColumns columns;
      KeyColumns::read(columns, page, thread);
      KeyWords::store(keys, o->coded.keys, m, l, thread);
      EightValues::read(values[1], page + l.bytes, eight + 1, word);
      EightValues::store(values[0], m, o->coded.values, eight, word);
      EightValues::store(values[1], m, o->coded.values, eight + 1, word);
      KeyColumns::store(columns, o, l, thread);
    }
  }

  // copyExact starts the copy of a page of float16; beyond the last token zeros.
  DEV void copyExact(Operand* o, const PrefillParams& p, int page, int last, int thread) {
    const u8* from = (const u8*)(p.exact[page] + p.exactLayer) + 2 * blockIdx.y * (kTokens * D * 2);
    constexpr int kPieces = D / 8;  // of a token
    u8* to = (u8*)o;
    int most = min(last - page * kTokens, kTokens - 1);
#pragma unroll 4
    for (int i = thread; i < 2 * kTokens * kPieces; i += 128) {
      int half = i / (kTokens * kPieces), t = i / kPieces % kTokens, piece = i % kPieces;
      copy16Or0(to + (kHalves * half + piece / 8) * (kTokens * kRow) + t * kRow + ((piece ^ t) & 7) * 16, from + 16 * i, t <= most);
    }
    copyCommit();
  }

  // made meets when operand k is made, and publish, of thread 0 then, says that it is.
  DEV void made(Shared& m, u32 k, int turn) {
    operandFence();
    if (kEachArrives) barrierArrive(&m.full[k % kSlots]);
    someSync(1 + kGroups + turn, 128);
  }
  DEV void publish(Shared& m, u32 k) {
    if (!kEachArrives) barrierArrive(&m.full[k % kSlots]);
  }

  // produce is the part of one of the warpgroups that spread, which take turns.
  DEV void produce(Shared& m, const PrefillParams& p, const Span& s, int turn, int thread) {
    const Leads leads = Leads::of(p);
    const int bytes = P::bytes + leads.bytes;
    u64 offset = p.codedLayer + (u64)blockIdx.y * bytes;
    auto start = [&](int k, u64 page) {
      barrierExpect(&m.come[k % kStages], bytes);
      copyBulk(m.stage[k % kStages], (const u8*)(page + offset), bytes, &m.come[k % kStages]);
    };
    auto address = [&](int k) { return k < s.coded ? p.coded[s.lo + k] : 0; };
    if (thread == 0)
      for (int k = turn; k < min(kStages, s.coded); k += kSpreaders) start(k, p.coded[s.lo + k]);
    u64 next = address(turn + kStages);
    Masks masks = Masks::of((u32)p.rows >> 31);
    int k = turn;
    u32 at = 1 + turn;  // operand 0 is none
#pragma unroll 1
    for (; k < s.coded; k += kSpreaders, at += kSpreaders) {
      u64 page = next;
      next = address(k + kStages + kSpreaders);
      barrierWait(&m.come[k % kStages], k / kStages & 1);
      barrierWait(&m.empty[at % kSlots], ~(at / kSlots) & 1);
      spread(&m.slot[at % kSlots], masks, m.stage[k % kStages], leads, thread);
      made(m, at, turn);
      if (thread == 0) {
        publish(m, at);
        if (k + kStages < s.coded) start(k + kStages, page);
      }
    }
#pragma unroll 1
    for (int i = kSpreaders > 1 ? k - s.coded : 0; i < s.exact + kSpreaders; i += kSpreaders, at += kSpreaders) {
      if (i < s.exact) {
        barrierWait(&m.empty[at % kSlots], ~(at / kSlots) & 1);
        copyExact(&m.slot[at % kSlots], p, Span::page(s, i), s.last, thread);
      } else {
        copyCommit();
      }
      if (i < kSpreaders) continue;
      copyWait<1>();
      made(m, at - kSpreaders, turn);
      if (thread == 0) publish(m, at - kSpreaders);
    }
  }
};
