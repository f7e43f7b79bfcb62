// Where everything lies in one KV head of a coded page of 64 tokens and D
// channels: quant.Geometry.HQ's offsets as constants (a test compares them).
#pragma once
#include "prim.cuh"

static constexpr int kTokens = 64;

// How a half is coded: one plane, both, the second for some tokens only, the second
// for as many leading channels as a launch says, with a quarter of the others' scale
// (of K, in symmetric codes), or, from 16 on, the second for so many leading channels
// only, with a scale of their own.
enum Planes { kTwoBits = 0, kFourBits = 1, kSomeTokens = 2, kPlan = 3 };

template <int PLANES>
static constexpr bool kLeads = PLANES >= 16;

template <int D, int K, int V, bool ASYM>
struct Page {
  static constexpr int kLead = kLeads<K> ? K : 0;
  static constexpr int params = 2 * kTokens;  // bytes of one array of scales
  static constexpr int kSegments = kLeads<K> ? 2 : 1;
  static constexpr int perSegment = params * (ASYM ? 2 : 1);
  static constexpr int plane = kTokens * D / 4;
  static constexpr int kScale = 0;  // segment i: + i * perSegment; zeros follow
  static constexpr int kSet = kSegments * perSegment;
  static constexpr int kTop = kSet + (K == kSomeTokens ? 16 : 0);
  static constexpr int kTop1 = kTop + kTokens * kLead / 4;  // of the second segment
  static constexpr int kLow = kTop + plane;
  static constexpr int vScale = kLow + (K == kFourBits ? plane : kTokens * kLead / 4);
  static constexpr int vSet = vScale + perSegment;
  static constexpr int vTop = vSet + (V == kSomeTokens ? 16 : 0);
  // Without the second planes whose rows are counted at run time, those of some
  // tokens and of leading channels as planned: in shared memory they stand behind all
  // the rest.
  static constexpr int bytes = vTop + plane * (V == kFourBits ? 2 : 1);
  static constexpr bool kSomeKeys = K == kSomeTokens || K == kPlan, kSome = kSomeKeys || V == kSomeTokens;
  static_assert(K != kPlan || !ASYM, "what leads has a quarter of a scale, and no zero");

  // staged is where 16 bytes of a page go in shared memory. The words of V are read
  // four quads of tokens at a time, in which whole rows would meet in the same
  // banks: they are turned against each other on arrival.
  DEV int staged(int at, int lowRows) {
    if (kSomeKeys && at >= kLow / 16) {
      int low = lowRows * (D / 64);
      if (at < kLow / 16 + low) return at + (bytes - kLow) / 16;
      at -= low;
      if (at >= bytes / 16) return at + low;
    }
    if (at < vTop / 16 || (V == kSomeTokens && at >= bytes / 16)) return at;
    int v = at - vTop / 16;
    return vTop / 16 + (v ^ turn(v / (D / 16)));
  }
  // turn is what a quad's 16-byte pieces are turned by.
  DEV int turn(int quad) { return quad & 6; }
};

// rowsBytes is the size of rows of a second plane.
template <int D>
DEV int rowsBytes(int rows) {
  return rows * (D / 4);
}

// leadWords is the words of a token whose channels lead, by the rows of D channels
// that their second plane fills.
template <int D>
DEV int leadWords(int rows) {
  return rows * (D / 64) / 16;
}

// some gives the scale, zero and middle of a token's levels where some tokens have
// the second plane: those that have none are 4-bit codes of a quarter of the scale
// whose low half is zero. Where the plane refines codes of two bits, the scale and
// zero that stand there are theirs of all tokens.
DEV void some(float& scale, float& zero, float& middle, u64 set, int token, bool refined) {
  bool both = set >> token & 1;
  if (!both || refined) scale *= 0.25f;
  if (both && refined) zero -= 1.5f * scale;
  middle = both ? 7.5f : 6;
}

// below is the number of a set's tokens before one.
DEV int below(u64 set, int token) { return __popcll(set & (((u64)1 << token) - 1)); }

// spreadBits makes each of four bits a byte of ones.
DEV u32 spreadBits(u32 four) { return ((four & 1) | (four & 2) << 7 | (four & 4) << 14 | (four & 8) << 21) * 255; }

// lowKeyWord is a token's word of K's second plane, 0 where it has none.
template <int D>
DEV u32 lowKeyWord(const u8* low, int rows, u64 set, int token, int word) {
  if (!(set >> token & 1)) return 0;
  int row = min(below(set, token), rows - 1);
  return ((const u32*)low)[(row / 8 * (D / 16) + word) * 8 + row % 8];
}

// spreadLow gives V's second plane all its rows, those of tokens without it zero,
// turned as the first plane is.
template <int D>
DEV void spreadLow(u8* to, const u8* low, int rows, u64 set, int first, int step) {
  constexpr int kWords = D / 4;  // of a quad
  for (int i = first; i < kTokens / 4 * kWords; i += step) {
    int quad = i / kWords, at = i % kWords, row = below(set, 4 * quad), four = (int)(set >> (4 * quad)) & 15;
    u32 word = 0;
    if (four) {
      int q0 = min(row / 4, rows / 4 - 1), q1 = min(row / 4 + 1, rows / 4 - 1);
      u32 a = ((const u32*)low)[q0 * kWords + at], b = ((const u32*)low)[q1 * kWords + at];
      u32 select = 0, from = row % 4;
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (four >> k & 1) select |= from++ << (4 * k);
      word = permuteBy(a, b, select) & spreadBits(four);
    }
    int piece = i / 4;
    ((u32*)to)[(piece ^ (quad & 6)) * 4 + i % 4] = word;
  }
}

// Every attention kernel gives, of a run of tokens and a query, the reference
// exponent m, the sum of 2^(x-m) and the values weighted so: the state that
// merges by log-sum-exp. m need not be the largest x, only near it.
struct State {
  float m, sum;
};

// The item that a block works on: some tokens of one KV head of one sequence,
// and up to NQ of the head's queries. Exact tokens are counted through: the sinks
// and then the recent ones.
struct alignas(16) Item {
  int sequence, head, firstQuery;
  int lo, hi;            // coded pages
  int exactLo, exactHi;  // exact tokens, counted through; exactLo a multiple of 16
  int sinks, skip;       // exact token i is token i, or i + skip from sinks on
  int exactWarps;        // the first warps of the block take the exact tokens
  int slot;              // where the item's state goes
  int first;             // the first slot of this head and these queries
  int parts;             // slots of them; 1: straight to the output
  int next;              // of the same block, or -1
  int pad[2];
};

// Even is a plan whose pieces of work are all alike, each cut into as many parts:
// block (x, y, z) has part x of KV head y of sequence z, and fetches no item.
struct Even {
  u16 parts;                 // of a head; 0: the plan is the items
  u16 morePages, moreUnits;  // the first so many parts have a page more, the last so many a unit
  u16 settled;               // 1: no coded page that is read is one that the step writes
  int lo, pages;             // the first coded page, and pages of a part
  u8 exactWarps[4];          // of a part with a page more: + 1, with a unit more: + 2
};

// A block begins with what lies in the middle, and waits for it: it is one line of
// the constants' cache (64 bytes, from 48 on, as parameters begin at 0x210).
struct AttendParams {
  float* out;         // [sequence][kv head][group][D]
  State* states;      // [slot][run][4]: of the queries of a run (attend.cuh, Runs)
  float* values;      // [slot][run][64]
  u32* arrived;       // [slot][run], zero; of first slots only
  const u64* exact;   // [sequence][pages]: addresses of exact pages
  u64 exactLayer;     // the layer's offset in a page
  const u64* coded;   // [sequence][pages]: addresses of coded pages
  u64 codedLayer;
  const Item* items;  // block b begins with item b
  const float* q;     // as out
  Even even;
  int pages;          // width of the tables
  u16 heads, group;
  float scale;        // of the scores, times log2(e)
  // Rows of D channels of the second planes of some tokens only, of K and V; or that
  // the planned leading channels' fill.
  int lowRows[2];
  int units;  // of an even plan's part, and as an item's:
  int exactHi, sinks, skip;
  int refined;  // bit 0: some tokens' second plane of K refines codes of two bits, bit 1: of V
  int pad;
};

// firstItem is a block's, itemAt one of the list, asked for at once.
DEV Item itemAt(const AttendParams& p, int i) {
  Item it;
#pragma unroll
  for (int k = 0; k < (int)sizeof(Item) / 16; k++) ((Quad32*)&it)[k] = loadNow((const Quad32*)(p.items + i) + k);
  return it;
}
DEV Item firstItem(const AttendParams& p) {
  const Even& e = p.even;
  if (e.parts == 0) return itemAt(p, blockIdx.x);
  Item it;
  int part = blockIdx.x, last = e.parts - e.moreUnits, unit = part * p.units + max(part - last, 0);
  int more = part < e.morePages ? 1 : 0, moreUnits = part >= last ? 1 : 0;
  it.sequence = blockIdx.z, it.head = blockIdx.y, it.firstQuery = 0;
  it.lo = e.lo + part * e.pages + min(part, (int)e.morePages), it.hi = it.lo + e.pages + more;
  it.exactLo = 16 * unit, it.exactHi = min(p.exactHi, 16 * (unit + p.units + moreUnits));
  it.sinks = p.sinks, it.skip = p.skip;
  it.exactWarps = e.exactWarps[more + 2 * moreUnits];
  it.first = (it.sequence * p.heads + it.head) * e.parts, it.slot = it.first + part;
  it.parts = e.parts, it.next = -1;
  return it;
}
