// Which tokens of a prompt keep the second plane: what its last queries give to each,
// the choice, and the planes of the chosen (docs/formats.md, "Important tokens").
#pragma once
#include "encode.cuh"
#include "prefill.cuh"

struct WeighParams {
  const u64* exact;  // [page] of the sequence
  u64 exactLayer;
  const float* q;       // [row][kv head][group][D]
  const float* states;  // of each vector in q, from prompt attention
  float* sums;          // [kv head][stride]
  int page;             // of block 0
  int position;         // of row 0
  int rows, heads, group;
  int stride;
  float scale;  // of the scores, times log2(e)
  int more;     // 0: sums are written, else added to
};

static constexpr int kWeighThreads = 128, kChooseThreads = 1024, kRefineThreads = 128;

// Block (page, kv head) adds up the weights that all rows give to each of its tokens:
// scores as prompt attention's for exact tokens, with what float16 leaves of the
// queries beside them. Sums have one order.
template <int D>
struct Weigh {
  using Plain = Prefill<D, kTwoBits, kTwoBits, false>;
  static constexpr int kWarps = kWeighThreads / 32;

  // Vectors are a lane's, r and r + 8 of its warp's sixteen.
  struct Vectors {
    u32 high[D / 16][4], low[D / 16][4];  // float16 and what it leaves
    float m[2], inv[2];
    int position[2];  // -1: beyond the last
  };

  DEV void loadVectors(Vectors& c, const WeighParams& p, int first, int lane) {
    int r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int v = first + r + 8 * h;
      bool there = v < p.rows * p.group;
      u64 at = there ? (u64)(v / p.group * p.heads + blockIdx.y) * p.group + v % p.group : 0;
      c.position[h] = there ? p.position + v / p.group : -1;
      State s = there ? ((const State*)p.states)[at] : State{0, 1};
      c.m[h] = s.m, c.inv[h] = 1 / s.sum;
      const float* x = p.q + at * D;
#pragma unroll
      for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int y = 0; y < 2; y++) {
          int ch = 32 * (k / 2) + 8 * q + 4 * (k % 2) + 2 * y;
          float a = there ? x[ch] * p.scale : 0, b = there ? x[ch + 1] * p.scale : 0;
          u32 both = narrow2(a, b);
          c.high[k][h + 2 * y] = both;
          c.low[k][h + 2 * y] = narrow2(a - widenLow(both), b - widenHigh(both));
        }
    }
  }

  DEV void run(const WeighParams& p) {
    SHARED(memory);
    float(*columns)[kTokens] = (float(*)[kTokens])memory;
    letNextStart();
    waitBefore();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane >> 2, q = lane & 3;
    int page = p.page + blockIdx.x, first = page * kTokens;
    const u8* keys = (const u8*)(p.exact[page] + p.exactLayer) + 2 * blockIdx.y * (kTokens * D * 2);
    float sum[8][2] = {};
    for (int v = 16 * warp; v < p.rows * p.group; v += 16 * kWarps) {
      Vectors c;
      loadVectors(c, p, v, lane);
#pragma unroll
      for (int n = 0; n < 8; n++) {
        float x[4] = {};
        const u8* key = keys + ((8 * n + r) * D + 8 * q) * 2;
#pragma unroll
        for (int k = 0; k < D / 32; k++) {
          Quad32 w = load<Quad32>(key + 64 * k);
          mmaHalf(x, c.high[2 * k][0], c.high[2 * k][1], c.high[2 * k][2], c.high[2 * k][3], w.x, w.y);
          mmaHalf(x, c.high[2 * k + 1][0], c.high[2 * k + 1][1], c.high[2 * k + 1][2], c.high[2 * k + 1][3], w.z, w.w);
          mmaHalf(x, c.low[2 * k][0], c.low[2 * k][1], c.low[2 * k][2], c.low[2 * k][3], w.x, w.y);
          mmaHalf(x, c.low[2 * k + 1][0], c.low[2 * k + 1][1], c.low[2 * k + 1][2], c.low[2 * k + 1][3], w.z, w.w);
        }
#pragma unroll
        for (int e = 0; e < 2; e++)
#pragma unroll
          for (int h = 0; h < 2; h++)
            if (first + 8 * n + 2 * q + e <= c.position[h]) sum[n][e] += exp2Fast(x[2 * h + e] - c.m[h]) * c.inv[h];
      }
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) sum[n][e] += laneXor(sum[n][e], mask);
        if (r == 0) columns[warp][8 * n + 2 * q + e] = sum[n][e];
      }
    blockSync();
    if (threadIdx.x < kTokens) {
      float* to = p.sums + (u64)blockIdx.y * p.stride + first + threadIdx.x;
      float all = p.more ? *to : 0;
      for (int w = 0; w < kWarps; w++) all += columns[w][threadIdx.x];
      *to = all;
    }
  }
};

KERNEL(weigh_64, WeighParams, kWeighThreads, 3) { Weigh<64>::run(p); }
KERNEL(weigh_128, WeighParams, kWeighThreads, 3) { Weigh<128>::run(p); }

struct ChooseParams {
  const float* sums;  // [kv head][stride]
  float* spread;      // likewise, for the block's own use
  u64* sets;          // [kv head][page from lo on]
  int stride;
  int lo, hi;  // tokens to choose among, whole pages
  int count;   // of them to choose
  int most;    // of a page
  int pad;
};

// Block h chooses tokens of one KV head as quant.Format.ImportantTokens does. Weights are not
// negative, so that their bits have their order.
struct Choose {
  static constexpr int kWarps = kChooseThreads / 32, kReach = 3;

  struct Shared {
    u32 counts[256];
    u32 warps[kWarps];
    u32 bin, above;
  };

  // kth gives the bits of the count-th largest weight, and leaves in count how many of
  // those as large are among the count largest.
  DEV u32 kth(Shared* m, const float* spread, int n, u32& count) {
    u32 key = 0;
#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
      if (threadIdx.x < 256) m->counts[threadIdx.x] = 0;
      blockSync();
      for (int i = threadIdx.x; i < n; i += kChooseThreads) {
        u32 bits = asBits(spread[i]);
        if (shift == 24 || bits >> (shift + 8) == key) addTo(&m->counts[bits >> shift & 255], 1u);
      }
      blockSync();
      if (threadIdx.x == 0) {
        u32 above = 0, bin = 255;
        for (; bin > 0 && above + m->counts[bin] < count; bin--) above += m->counts[bin];
        m->bin = bin, m->above = above;
      }
      blockSync();
      key = key << 8 | m->bin;
      count -= m->above;
    }
    return key;
  }

  // take writes the sets: what is above the key, and the first of what is equal.
  DEV void take(Shared* m, u32* sets, const float* spread, int n, u32 key, u32 equal) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 before = 0;
    for (int base = 0; base < n; base += kChooseThreads) {
      int i = base + threadIdx.x;
      u32 bits = i < n ? asBits(spread[i]) : 0;
      bool tie = i < n && bits == key;
      u32 ties = laneVotes(tie);
      if (lane == 0) m->warps[warp] = __popcll(ties);
      blockSync();
      u32 rank = before + __popcll(ties & ((1u << lane) - 1));
      for (int w = 0; w < kWarps; w++) {
        if (w < warp) rank += m->warps[w];
        before += m->warps[w];
      }
      u32 chosen = laneVotes(i < n && (bits > key || (tie && rank < equal)));
      if (lane == 0 && i < n) sets[i / 32] = chosen;
      blockSync();
    }
  }

  // limit leaves the most of a page's tokens that weigh most, of equals the first.
  DEV void limit(u64* set, const float* spread, int most, int lane) {
    u64 all = *set, left = 0;
    if (__popcll(all) <= most) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int t = lane + 32 * half, heavier = 0;
      u32 bits = asBits(spread[t]);
      for (u64 rest = all; rest; rest &= rest - 1) {
        int other = __popcll((rest & (0 - rest)) - 1);
        u32 w = asBits(spread[other]);
        heavier += w > bits || (w == bits && other < t);
      }
      left |= (u64)laneVotes((all >> t & 1) && heavier < most) << (32 * half);
    }
    if (lane == 0) *set = left;
  }

  DEV void run(const ChooseParams& p) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    letNextStart();
    waitBefore();
    int n = p.hi - p.lo, head = blockIdx.x;
    const float* sums = p.sums + (u64)head * p.stride + p.lo;
    float* spread = p.spread + (u64)head * p.stride;
    u64* sets = p.sets + (u64)head * (n / kTokens);
    for (int i = threadIdx.x; i < n; i += kChooseThreads) {
      float most = sums[i];
      for (int k = max(0, i - kReach); k < min(n, i + kReach + 1); k++) most = larger(most, sums[k]);
      spread[i] = most;
    }
    blockSync();
    u32 equal = p.count, key = kth(m, spread, n, equal);
    take(m, (u32*)sets, spread, n, key, equal);
    for (int page = threadIdx.x / 32; page < n / kTokens; page += kWarps) limit(sets + page, spread + page * kTokens, p.most, threadIdx.x % 32);
  }
};

KERNEL(choose, ChooseParams, kChooseThreads, 1) { Choose::run(p); }

// A half whose second planes refine codes of two bits (quant.HQHalf).
struct RefineHalf {
  int scale, zero, top, low, set;  // offsets from the head; zero -1 where there is none
  int rows;                        // of the second plane; 0: it has none
};

struct RefineParams {
  const u64* exact;  // [page] of the sequence
  const u64* coded;
  const u64* sets;  // [kv head][page]
  u64 exactLayer, codedLayer;
  int page, pages;  // of block 0, and how many
  int headBytes;
  int pad;
  RefineHalf half[2];
};

// Block (page, kv head, half) gives the tokens of a set the second plane, as
// quant.Geometry.Refine does.
template <int D>
struct Refine {
  // low is the lower two bits of an element's code of four: of a step's four levels
  // the nearest.
  DEV u32 low(const RefineHalf& h, const u8* head, const u16* exact, int half, int t, int c) {
    int at = half == 0 ? 4 * ((t / 8 * (D / 16) + c / 16) * 8 + t % 8) + c % 4 : 4 * ((t / 4 * (D / 32) + c / 32) * 8 + c % 8) + t % 4;
    int top = head[h.top + at] >> (half == 0 ? c % 16 / 4 * 2 : c % 32 / 8 * 2) & 3;
    float scale = 0.25f * widen(((const u16*)(head + h.scale))[t]), zero = -mulRound(7.5f, scale);
    if (h.zero >= 0) zero = subRound(widen(((const u16*)(head + h.zero))[t]), mulRound(1.5f, scale));
    float inv = scale == 0 ? 0 : divRound(1, scale);
    float y = addRound(mulRound(subRound(tame(widen(exact[t * D + c])), zero), inv), 0.5f);
    int code = (int)(y < 0 ? 0 : y > 15 ? 15 : y);
    return (u32)(min(max(code, 4 * top), 4 * top + 3) - 4 * top);
  }

  // nth is the n-th token of a set, -1 behind the last.
  DEV int nth(u64 set, int n) {
    for (; n > 0; n--) set &= set - 1;
    return set ? __popcll((set & (0 - set)) - 1) : -1;
  }

  DEV void run(const RefineParams& p) {
    letNextStart();
    waitBefore();
    int page = p.page + blockIdx.x, half = blockIdx.z;
    const RefineHalf& h = p.half[half];
    if (h.rows == 0) return;
    u64 set = p.sets[(u64)blockIdx.y * p.pages + blockIdx.x];
    u8* head = (u8*)(p.coded[page] + p.codedLayer) + blockIdx.y * p.headBytes;
    const u16* exact = (const u16*)(p.exact[page] + p.exactLayer) + (2 * blockIdx.y + half) * (kTokens * D);
    if (threadIdx.x < 2) ((u32*)(head + h.set))[threadIdx.x] = (u32)(set >> (32 * threadIdx.x));
    for (int w = threadIdx.x; w < h.rows * D / 16; w += kRefineThreads) {
      int row = half == 0 ? w / (D / 2) * 8 + w % 8 : w / (D / 4) * 4;                        // of byte 0
      int c = half == 0 ? w / 8 % (D / 16) * 16 : w / 8 % (D / 32) * 32 + w % 8;  // of its first pair
      u32 word = 0;
      for (int b = 0; b < 4; b++) {
        int t = nth(set, half == 0 ? row : row + b);
        if (t < 0) continue;
        for (int i = 0; i < 4; i++) word |= low(h, head, exact, half, t, half == 0 ? c + 4 * i + b : c + 8 * i) << (8 * b + 2 * i);
      }
      ((u32*)(head + h.low))[w] = word;
    }
  }
};

KERNEL(refine_64, RefineParams, kRefineThreads, 4) { Refine<64>::run(p); }
KERNEL(refine_128, RefineParams, kRefineThreads, 4) { Refine<128>::run(p); }
