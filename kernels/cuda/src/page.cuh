// Where everything lies in one KV head of a coded page of 64 tokens and 128
// channels: quant.Geometry.HQ's offsets as constants (decode.go compares them).
#pragma once
#include "prim.cuh"

static constexpr int kTokens = 64;
static constexpr int kDim = 128;
static constexpr int kLead = 32;  // channels of the 4-bit segment of K, where there is one

// How a half is coded: one plane, both, or the second for leading channels only.
enum Planes { kTwoBits = 0, kFourBits = 1, kLeading = 2 };

template <int K, int V, bool ASYM>
struct Page {
  static constexpr int params = 2 * kTokens;  // bytes of one array of scales
  static constexpr int kSegments = K == kLeading ? 2 : 1;
  static constexpr int perSegment = params * (ASYM ? 2 : 1);
  static constexpr int kScale = 0;  // segment i: + i * perSegment; zeros follow
  static constexpr int kTop = kSegments * perSegment;
  static constexpr int kTop1 = kTop + kTokens * kLead / 4;  // of the second segment
  static constexpr int kLow = kTop + kTokens * kDim / 4;
  static constexpr int kLowBytes = K == kFourBits ? kTokens * kDim / 4 : K == kLeading ? kTokens * kLead / 4 : 0;
  static constexpr int vScale = kLow + kLowBytes;
  static constexpr int vTop = vScale + perSegment;
  static constexpr int plane = kTokens * kDim / 4;
  static constexpr int bytes = vTop + plane * (V == kFourBits ? 2 : 1);
};

// Every attention kernel gives, of a run of tokens and a query, the reference
// exponent m, the sum of 2^(x-m) and the values weighted so: the state that
// merges by log-sum-exp. m need not be the largest x, only near it.
struct State {
  float m, sum;
};

// The item that a block works on: some tokens of one KV head of one sequence,
// and up to NQ of the head's queries. Exact tokens are counted through: the sinks
// and then the recent ones.
struct Item {
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

struct AttendParams {
  const u64* coded;  // [sequence][pages]: addresses of coded pages
  const u64* exact;  // [sequence][pages]: addresses of exact pages
  u64 codedLayer;    // the layer's offset in a page
  u64 exactLayer;
  const float* q;  // [sequence][kv head][group][128]
  float* out;      // the same
  const Item* items;  // block b begins with item b
  float* states;      // [slot][queries]{m, sum}
  float* values;      // [slot][queries][128]
  u32* arrived;       // [slot], zero; of first slots only
  int pages;          // width of the tables
  int heads;
  int group;
  float scale;  // of the scores, times log2(e)
};
