// New tokens of K and V: into the cache's basis, stored as float16, and, with the
// last token of a page, the page's codes. The bits are those of package quant:
// every float32 step is rounded once, and sums run in channel order.
#pragma once
#include "prim.cuh"

// A run of channels of a half with scales of its own (quant.Segment).
struct EncodeSegment {
  int lo, hi, width;
  int scale, zero, top, low;  // offsets from the head; zero and low -1 where there is none
};

struct EncodeHalf {
  const float* x;      // [row][head][dim], after RoPE
  const float* shift;  // [head][dim], added first; null: none
  const float* signs;  // [dim] of the rotation; null: none
  const float* map;    // [head][dim in][dim out] in place of a rotation; null: none
  int segments;
  // Where some tokens only have a second plane: the offset of their set, -1
  // otherwise, and of the plane's rows and their bytes. No token is in it.
  int set, rows, rowsBytes;
  EncodeSegment segment[2];
};

struct EncodeParams {
  EncodeHalf half[2];  // K, V
  const u64* exact;    // [page] of the sequence
  const u64* coded;    // [page]; 0 where a page has no codes
  u64 exactLayer, codedLayer;
  int position;   // of row 0
  int rows;       // 0: only code the page, which is full
  int heads;
  int headBytes;  // of a coded page
  float norm;     // of the Hadamard matrix
  int clips;      // candidates for the scale: 5, or 1
  const int* positions;  // [sequence], one row each (negative: none); null: one sequence from position on
  int pages;             // of a sequence's row of the tables
  int keepNorm;          // of 2-bit codes
};

static constexpr int kEncodeThreads = 320;  // a candidate of a token's scale each

DEV float tame(float x) {  // as quant.saturate
  if (x != x) return 0;
  return x > 65504 ? 65504 : x < -65504 ? -65504 : x;
}

// hadamard multiplies a vector with the orthonormal Hadamard matrix in natural
// order; a lane has channels lane + 32j.
template <int N>
DEV void hadamard(float (&v)[N], int lane, float norm) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    u32 minus = lane & step ? 0x80000000u : 0;
#pragma unroll
    for (int j = 0; j < N; j++) {
      float other = laneXor(v[j], step);
      v[j] = addRound(other, asFloat(asBits(v[j]) ^ minus));
    }
  }
#pragma unroll
  for (int step = 1; step < N; step *= 2)
#pragma unroll
    for (int j = 0; j < N; j++)
      if (!(j & step)) {
        float a = v[j], b = v[j + step];
        v[j] = addRound(a, b), v[j + step] = subRound(a, b);
      }
#pragma unroll
  for (int j = 0; j < N; j++) v[j] = mulRound(v[j], norm);
}

// mapHead multiplies a vector with a matrix [in][out], in order; a lane has channels
// lane + 32j.
template <int N>
DEV void mapHead(float (&v)[N], const float* m, int lane) {
  float y[N] = {};
#pragma unroll
  for (int j = 0; j < N; j++)
#pragma unroll 8
    for (int i = 0; i < 32; i++) {
      float x = laneShuffle(v[j], i);
      const float* row = m + (32 * j + i) * (32 * N) + lane;
#pragma unroll
      for (int k = 0; k < N; k++) y[k] = addRound(y[k], mulRound(x, row[32 * k]));
    }
#pragma unroll
  for (int k = 0; k < N; k++) v[k] = y[k];
}

// widenRange takes a value into a range; it orders -0 before 0, as Go's min and max do.
DEV void widenRange(float v, float& lo, float& hi) {
  bool minus = (asBits(v) >> 31) != 0;
  if (v < lo || (v == lo && minus)) lo = v;
  if (v > hi || (v == hi && !minus)) hi = v;
}

template <int D>
struct Encode {
  static constexpr int kPage = 64;
  static constexpr int kRow = D + 2;  // 16-bit elements: tokens of a warp lie in different banks
  static constexpr int kEach = D / 32;

  struct Shared {
    u16 x[kPage * kRow];
    float error[5][kPage];  // of each candidate; before, parts of the extremes
    float high[5][kPage];
    float zero[kPage], inv[kPage];
  };

  // enter takes a token into the basis: a lane has channels lane + 32j.
  DEV void enter(const EncodeParams& p, const EncodeHalf& h, int row, int head, u16* to, u16* page, int lane) {
    const float* x = h.x + ((u64)row * p.heads + head) * D;
    float v[kEach];
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      v[j] = x[lane + 32 * j];
      if (h.shift) v[j] = addRound(v[j], h.shift[head * D + lane + 32 * j]);
    }
    if (h.map) mapHead(v, h.map + head * (D * D), lane);
    if (h.signs) {
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j] *= h.signs[lane + 32 * j];
      hadamard(v, lane, p.norm);
    }
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      u16 stored = narrow(tame(v[j]));
      to[lane + 32 * j] = stored;
      page[lane + 32 * j] = stored;
    }
  }

  // candidate is the scale and zero of one clip of a token's segment.
  DEV void candidate(float& scale, float& zero, float centre, float reach, int clip, bool four, bool symmetric) {
    const float two[5] = {1, 0.8f, 0.67f, 0.57f, 0.47f}, both[5] = {1, 0.9f, 0.8f, 0.7f, 0.6f};
    float part = 1;
#pragma unroll
    for (int i = 0; i < 5; i++)
      if (i == clip) part = four ? both[i] : two[i];
    float middle = four ? 7.5f : 1.5f;
    scale = widen(narrow(tame(divRound(mulRound(reach, part), middle))));
    zero = -mulRound(middle, scale);
    if (!symmetric) zero = widen(narrow(tame(addRound(centre, zero))));
  }

  DEV float inverse(float scale) { return scale == 0 ? 0 : divRound(1, scale); }

  // level is floor((x - zero) · inv + 1/2) within the levels, as a float.
  DEV float level(float x, float zero, float inv, bool four) {
    float y = addRound(mulRound(subRound(x, zero), inv), 0.5f);
    if (!four) return (y >= 1 ? 1.0f : 0.0f) + (y >= 2 ? 1.0f : 0.0f) + (y >= 3 ? 1.0f : 0.0f);
    return (float)(int)(y < 0 ? 0 : y > 15 ? 15 : y);
  }

  // extremes of a token's channels, a fifth of them by each of its threads.
  DEV void extremes(Shared* m, const u16* x, int n, int t, int part, float& lo, float& hi) {
    int first = n / 5 * part, last = part == 4 ? n : n / 5 * (part + 1);
    lo = hi = widen(x[first]);
    for (int c = first + 1; c < last; c++) widenRange(widen(x[c]), lo, hi);
    m->error[part][t] = lo, m->high[part][t] = hi;
    blockSync();
    lo = m->error[0][t], hi = m->high[0][t];
    for (int k = 1; k < 5; k++) {
      widenRange(m->error[k][t], lo, hi);
      widenRange(m->high[k][t], lo, hi);
    }
    blockSync();
  }

  // squared is the sum of squared errors of a candidate, in channel order. Of 2-bit
  // codes it also gives the squares of x less the centre, and its products with them.
  template <bool FOUR>
  DEV float squared(const u16* x, int n, float scale, float zero, float& squares, float& products) {
    float inv = inverse(scale), sum = 0, centre = addRound(zero, mulRound(1.5f, scale));
    squares = products = 0;
#pragma unroll 4
    for (int c = 0; c < n; c += 2) {
      u32 two = load<u32>(x + c);
#pragma unroll
      for (int k = 0; k < 2; k++) {
        float v = k ? widenHigh(two) : widenLow(two);
        float code = level(v, zero, inv, FOUR);
        if (!FOUR) {
          float u = subRound(v, centre);
          squares = addRound(squares, mulRound(u, u));
          products = addRound(products, mulRound(u, code - 1.5f));
        }
        float e = subRound(addRound(mulRound(code, scale), zero), v);
        sum = addRound(sum, mulRound(e, e));
      }
    }
    return sum;
  }

  DEV void segment(const EncodeParams& p, const EncodeHalf& h, const EncodeSegment& s, Shared* m, u8* head, bool values) {
    int t = threadIdx.x % kPage, clip = threadIdx.x / kPage, n = s.hi - s.lo;
    bool four = s.low >= 0, symmetric = s.zero < 0;
    const u16* x = m->x + t * kRow + s.lo;
    float lo, hi, scale, zero, squares = 0, products = 0;
    extremes(m, x, n, t, clip, lo, hi);
    float centre = symmetric ? 0 : addRound(lo * 0.5f, hi * 0.5f);
    float reach = symmetric ? larger(hi, -lo) : subRound(hi * 0.5f, lo * 0.5f);
    if (symmetric && reach == 0) reach = 0;  // not -0
    if (clip < p.clips) {
      candidate(scale, zero, centre, reach, clip, four, symmetric);
      m->error[clip][t] = four ? squared<true>(x, n, scale, zero, squares, products) : squared<false>(x, n, scale, zero, squares, products);
    }
    blockSync();
    int best = 0;
    for (int i = 1; i < p.clips; i++)
      if (m->error[i][t] < m->error[best][t]) best = i;
    if (clip == best) {
      m->zero[t] = zero, m->inv[t] = inverse(scale);
      if (p.keepNorm && products > 0) {  // never of 4-bit codes
        centre = addRound(zero, mulRound(1.5f, scale));
        scale = widen(narrow(tame(divRound(squares, products))));
        zero = addRound(centre, -mulRound(1.5f, scale));
        if (!symmetric) zero = widen(narrow(tame(zero)));
      }
      ((u16*)(head + s.scale))[t] = narrow(scale);
      if (!symmetric) ((u16*)(head + s.zero))[t] = narrow(zero);
    }
    blockSync();
    if (four) {
      pack<true>(s, m, head, values);
    } else {
      pack<false>(s, m, head, values);
    }
    blockSync();
  }

  // pack makes the words of a segment's planes. Dividing by a width is slow: once a
  // word.
  template <bool FOUR>
  DEV void pack(const EncodeSegment& s, Shared* m, u8* head, bool values) {
    int n = s.hi - s.lo, run = values ? s.width / 4 : s.width / 2, column = values ? s.width / 32 : s.width / 16;
    for (int w = threadIdx.x; w < kPage * s.width / 16; w += kEncodeThreads) {
      int token = values ? w / run * 4 : w / run * 8 + w % 8;  // of byte 0
      int c = w / 8 % column * (values ? 32 : 16) + (values ? w % 8 : 0);
      u32 top = 0, low = 0;
#pragma unroll
      for (int b = 0; b < 4; b++) {
        int t = values ? token + b : token;  // four tokens of four channels, or one token
        const u16* x = m->x + t * kRow + s.lo;
        float zero = m->zero[t], inv = m->inv[t];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int at = values ? c + 8 * i : c + 4 * i + b;
          if (at >= n) continue;
          u32 code = (u32)level(widen(x[at]), zero, inv, FOUR);
          top |= (FOUR ? code >> 2 : code) << (8 * b + 2 * i);
          low |= (code & 3) << (8 * b + 2 * i);
        }
      }
      ((u32*)(head + s.top))[w] = top;
      if (FOUR) ((u32*)(head + s.low))[w] = low;
    }
  }

  // run does one half of one head of one page: block (page, head, half), or
  // (0, head, 2·sequence + half).
  DEV void run(const EncodeParams& p) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    letNextStart();
    waitBefore();
    int half = blockIdx.z & 1, sequence = blockIdx.z >> 1;
    const EncodeHalf& h = p.half[half];
    int position = p.positions ? p.positions[sequence] : p.position;
    if (position < 0) return;
    u64 table = (u64)sequence * p.pages;
    int head = blockIdx.y, page = position / kPage + blockIdx.x, first = page * kPage;
    int lo = max(position, first) - first, hi = min(position + p.rows, first + kPage) - first;
    if (p.rows == 0) lo = hi = kPage;  // all of the page is there already
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u16* exact = (u16*)(p.exact[table + page] + p.exactLayer) + (2 * head + half) * (kPage * D);
    for (int t = lo + warp; t < hi; t += kEncodeThreads / 32)
      enter(p, h, sequence + first + t - position, head, m->x + t * kRow, exact + t * D, lane);
    if (hi < kPage || !p.coded || !p.coded[table + page]) return;
    for (int i = threadIdx.x; i < lo * D; i += kEncodeThreads) m->x[i / D * kRow + i % D] = narrow(tame(widen(exact[i])));
    blockSync();
    u8* out = (u8*)(p.coded[table + page] + p.codedLayer) + head * p.headBytes;
    if (h.set >= 0) {
      if (threadIdx.x < 4) ((u32*)(out + h.set))[threadIdx.x] = 0;
      for (int i = threadIdx.x; i < h.rowsBytes / 4; i += kEncodeThreads) ((u32*)(out + h.rows))[i] = 0;
    }
    for (int i = 0; i < h.segments; i++) segment(p, h, h.segment[i], m, out, half == 1);
  }
};
