// New tokens of K and V: into the cache's basis, stored as float16, and, with the
// last token of a page, the page's codes. The bits are those of package quant:
// every float32 step is rounded once, and sums run in channel order.
#pragma once
#include "basis.cuh"
#include "codes.cuh"

// A run of channels of a half with scales of its own (quant.Segment).
struct EncodeSegment {
  int lo, hi, width;
  int scale, zero, top, low;  // offsets from the head; zero and low -1 where there is none
  int shared;  // 1: with a quarter of the next segment's scale, which is at its place (symmetric K)
};

struct EncodeHalf {
  const float* x;      // [row][head][dim], after RoPE; null: the rows are in their pages (MapKeys)
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

static constexpr int kEncodeThreads = 64;  // a token of the page each

template <int D>
struct Encode {
  static constexpr int kPage = 64;
  static constexpr int kRow = D + 8;  // 16-bit elements: tokens of a warp lie in different banks
  static constexpr int kEach = D / 32;

  struct Shared {
    u16 x[kPage * kRow];
  };

  // What a vector is taken into the basis with, a lane having channels lane + 32j.
  struct Basis {
    float shift[kEach], signs[kEach];
  };
  DEV Basis basis(const EncodeHalf& h, int head, int lane) {
    Basis b;
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      b.shift[j] = h.shift ? h.shift[head * D + lane + 32 * j] : 0;
      b.signs[j] = h.signs ? h.signs[lane + 32 * j] : 0;
    }
    return b;
  }

  // putRow takes one token's vector into the basis and stores it.
  DEV void putRow(const EncodeParams& p, const EncodeHalf& h, const Basis& b, int head, float (&v)[kEach], u16* to, int lane) {
#pragma unroll
    for (int j = 0; j < kEach; j++)
      if (h.shift) v[j] = addRound(v[j], b.shift[j]);
    if (h.map) mapHead(v, h.map + head * (D * D), lane);
    if (h.signs) {
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j] *= b.signs[j];
      hadamard(v, lane, p.norm);
    }
#pragma unroll
    for (int j = 0; j < kEach; j++) to[lane + 32 * j] = narrow(tame(v[j]));
  }

  // store takes four vectors a warp into the rotation and stores them, those of tokens
  // before hi, in the page and in shared memory.
  DEV void store(const EncodeParams& p, const EncodeHalf& h, float (&v)[kEach][4], int t, int hi, Shared* m, u16* exact, int lane) {
    int at = lane % 8 * 4;
    if (h.signs) {
      eachOf(v, h.signs + at, [](float a, float b) { return mulRound(a, b); });
      turnFour(v, lane, p.norm);
    }
    u32 two[2 * kEach];
#pragma unroll
    for (int j = 0; j < kEach; j++) two[2 * j] = narrow2(v[j][0], v[j][1]), two[2 * j + 1] = narrow2(v[j][2], v[j][3]);
    saturateAll(two);
    if (t >= hi) return;
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      Pair32 pair = {two[2 * j], two[2 * j + 1]};
      *(Pair32*)(m->x + t * kRow + at + 32 * j) = pair;
      *(Pair32*)(exact + t * D + at + 32 * j) = pair;
    }
  }

  // put takes tokens [lo, hi) of the page into the basis, and stores them in it and
  // in shared memory; x are those of token lo.
  DEV void put(const EncodeParams& p, const EncodeHalf& h, int head, const float* x, int lo, int hi, Shared* m, u16* exact) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = lane % 8 * 4;
    // the two tokens that 16 lanes store are four rows apart: in other banks
    int first = lo + lane / 8 % 2 * 4 + lane / 16 + warp * 2, step = kEncodeThreads / 8;
    x += (u64)(first - lo) * p.heads * D + at;
    Quad32 next[kEach];
    if (first < hi) loadFour(next, x);
#pragma unroll 1
    for (int base = lo; base < hi; base += step) {
      int t = first + base - lo;
      float v[kEach][4];
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j][0] = asFloat(next[j].x), v[j][1] = asFloat(next[j].y), v[j][2] = asFloat(next[j].z), v[j][3] = asFloat(next[j].w);
      x += (u64)step * p.heads * D;
      if (t + step < hi) loadFour(next, x);
      if (h.shift) eachOf(v, h.shift + head * D + at, [](float a, float b) { return addRound(a, b); });
      store(p, h, v, t, hi, m, exact, lane);
    }
  }

  // get reads the page's first n tokens into shared memory.
  DEV void get(Shared* m, const u16* exact, int n) {
    constexpr int kPieces = D / 8;
    for (int i = threadIdx.x; i < n * kPieces; i += kEncodeThreads) {
      Quad32 q = load<Quad32>(exact + 8 * i);
      u32 h[4] = {q.x, q.y, q.z, q.w};
      saturateAll(h);
      *(Quad32*)(m->x + i / kPieces * kRow + i % kPieces * 8) = {h[0], h[1], h[2], h[3]};
    }
  }

  // extremes of a token's channels, and the least size of one; -0 is below 0, as for
  // Go's min and max.
  DEV void extremes(const u16* x, int n, float& lo, float& hi, float& least) {
    u32 a = load<u32>(x), b = a, c = a & 0x7fff7fff;
#pragma unroll 2
    for (int i = 0; i < n; i += 8) {
      Quad32 q = load<Quad32>(x + i);
      const u32 in[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int k = 0; k < 4; k++) a = minHalves(a, in[k]), b = maxHalves(b, in[k]), c = minHalves(c, in[k] & 0x7fff7fff);
    }
    lo = widenLow(minHalves(a, a >> 16)), hi = widenLow(maxHalves(b, b >> 16)), least = widenLow(minHalves(c, c >> 16));
  }

  // squared are the sums of squared errors of all candidates, in channel order. f
  // gives a candidate's error of a value.
  template <class F>
  DEV void squared(float (&sum)[5], const u16* x, int n, F f) {
#pragma unroll
    for (int i = 0; i < 5; i++) sum[i] = 0;
#pragma unroll 1
    for (int c = 0; c < n; c += 8) {
      Quad32 q = load<Quad32>(x + c);
      const u32 in[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int k = 0; k < 8; k++) {
        float v = k % 2 ? widenHigh(in[k / 2]) : widenLow(in[k / 2]);
#pragma unroll
        for (int i = 0; i < 5; i++) {
          float e = f(v, i);
          sum[i] = addRound(sum[i], mulRound(e, e));
        }
      }
    }
  }

  // fit is the candidate of the least squared error.
  template <bool FOUR>
  DEV Fit fit(const EncodeParams& p, const u16* x, int n, bool symmetric) {
    float lo, hi, least;
    extremes(x, n, lo, hi, least);
    float centre = symmetric ? 0 : addRound(lo * 0.5f, hi * 0.5f);
    float reach = symmetric ? larger(hi, -lo) : subRound(hi * 0.5f, lo * 0.5f);
    if (symmetric && reach == 0) reach = 0;  // not -0
    float scale[5], zero[5], sum[5];
#pragma unroll
    for (int i = 0; i < 5; i++) Levels<FOUR>::candidate(scale[i], zero[i], centre, reach, i, symmetric);
    if (p.clips == 1) return {scale[0], zero[0]};
    // The four levels of symmetric 2-bit codes are half a scale and one and a half from
    // zero, and only the size of a value says which is nearest. (In the middle both
    // have the same error. Of a value so small that the sums before its code lose its
    // sign the code may have the other one.)
    if (!FOUR && symmetric && least >= scale[0] * (1.0f / (1 << 20))) {
      float near[5], far[5];
#pragma unroll
      for (int i = 0; i < 5; i++) near[i] = 0.5f * scale[i], far[i] = 1.5f * scale[i];
      squared(sum, x, n, [&](float v, int i) { return subRound(fabsf(v) >= scale[i] ? far[i] : near[i], fabsf(v)); });
    } else {
      float inv[5];
#pragma unroll
      for (int i = 0; i < 5; i++) inv[i] = Levels<FOUR>::inverse(scale[i]);
      // a code times its scale is exact
      squared(sum, x, n, [&](float v, int i) { return subRound(fusedMulAdd(Levels<FOUR>::of(v, zero[i], inv[i]), scale[i], zero[i]), v); });
    }
    Fit best = {scale[0], zero[0]};
    float error = sum[0];
#pragma unroll
    for (int i = 1; i < 5; i++)
      if (sum[i] < error) error = sum[i], best = {scale[i], zero[i]};
    return best;
  }

  // codes are those of sixteen channels of a token, two float16 a word; of 2-bit
  // codes also the squares of x less the centre, and its products with them, are summed.
  // Where the centre is zero these are exact.
  template <bool FOUR, bool ASYM>
  DEV void codes(u32 (&code)[8], const u16* x, const Fit& f, float inv, float centre, float& squares, float& products) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      Quad32 q = load<Quad32>(x + 8 * i);
      const u32 in[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float two[2];
#pragma unroll
        for (int w = 0; w < 2; w++) {
          float v = w ? widenHigh(in[k]) : widenLow(in[k]);
          two[w] = Levels<FOUR>::of(v, f.zero, inv);
          if (FOUR) continue;
          if (!ASYM) {
            squares = fusedMulAdd(v, v, squares), products = fusedMulAdd(v, two[w] - 1.5f, products);
            continue;
          }
          float u = subRound(v, centre);
          squares = addRound(squares, mulRound(u, u));
          products = addRound(products, mulRound(u, two[w] - 1.5f));
        }
        code[4 * i + k] = narrow2(two[0], two[1]);
      }
    }
  }

  // pack codes a thread's token: the words of K to the page, those of V, whose words
  // have four tokens, in place of the channels in shared memory. It gives the fit to
  // store: that of 2-bit codes may be changed so that they keep the norm.
  template <bool FOUR, bool VALUES, bool ASYM>
  DEV Fit pack(const EncodeParams& p, const EncodeSegment& s, u16* x, u8* head, Fit f) {
    int t = threadIdx.x, n = s.hi - s.lo;
    float inv = Levels<FOUR>::inverse(f.scale), centre = addRound(f.zero, mulRound(1.5f, f.scale)), squares = 0, products = 0;
#pragma unroll 1
    for (int c = 0; c < n; c += 16) {
      u32 code[8];
      codes<FOUR, ASYM>(code, x + c, f, inv, centre, squares, products);
      if (VALUES) {
        u32 top[2], low[2];
        Words::valueWords<FOUR>(top, low, code);
        Quad32* to = (Quad32*)(x + c / 32 * 32);
        if (c % 32) {
          Quad32 q = *to;
          *to = {q.x | top[0] << 4, q.y | top[1] << 4, q.z | low[0] << 4, q.w | low[1] << 4};
        } else {
          *to = {top[0], top[1], low[0], low[1]};
        }
      } else {
        u32 top, low;
        Words::keyWord<FOUR>(top, low, code);
        int w = t / 8 * (s.width / 2) + c / 2 + t % 8;
        ((u32*)(head + s.top))[w] = top;
        if (FOUR) ((u32*)(head + s.low))[w] = low;
      }
    }
    if (!FOUR && p.keepNorm && products > 0) {
      f.scale = widen(narrow(tame(divRound(squares, products))));
      f.zero = addRound(centre, -mulRound(1.5f, f.scale));
      if (ASYM) f.zero = widen(narrow(tame(f.zero)));
    }
    return f;
  }

  // spread makes V's words of four tokens from what pack left of each.
  DEV void spread(const EncodeSegment& s, const Shared* m, u8* head, int plane, int to) {
    int run = s.width / 32 * 2, quad = threadIdx.x / 4;  // run: pieces of four tokens, two of 32 channels
    for (int at = threadIdx.x % 4; at < run; at += 4) {
      const u16* x = m->x + 4 * quad * kRow + s.lo + at / 2 * 32 + (at % 2 + plane) * 2;
      u32 w[4];
#pragma unroll
      for (int b = 0; b < 4; b++) w[b] = load<u32>(x + b * kRow);
      u32 a = permute<0x5140>(w[0], w[1]), b = permute<0x5140>(w[2], w[3]);
      u32 c = permute<0x7362>(w[0], w[1]), d = permute<0x7362>(w[2], w[3]);
      ((Quad32*)(head + to))[quad * run + at] = {permute<0x5410>(a, b), permute<0x7632>(a, b), permute<0x5410>(c, d), permute<0x7632>(c, d)};
    }
  }

  // packAs is pack of a segment as it is.
  template <bool FOUR>
  DEV Fit packAs(const EncodeParams& p, const EncodeSegment& s, u16* x, u8* head, Fit f, bool values) {
    if (FOUR || s.zero >= 0) return values ? pack<FOUR, true, true>(p, s, x, head, f) : pack<FOUR, false, true>(p, s, x, head, f);
    return values ? pack<FOUR, true, false>(p, s, x, head, f) : pack<FOUR, false, false>(p, s, x, head, f);
  }

  // segment codes a thread's token, whose leading channels share the scale if lead is
  // not null. scale is that of the segment behind and becomes this one's.
  template <bool FOUR>
  DEV void segment(const EncodeParams& p, const EncodeSegment& s, const EncodeSegment* lead, u16* x, u8* head, bool values, float& scale) {
    if (FOUR && s.shared) {
      scale *= 0.25f;
      packAs<FOUR>(p, s, x + s.lo, head, {scale, -mulRound(7.5f, scale)}, values);
      return;
    }
    Fit f = packAs<FOUR>(p, s, x + s.lo, head, fit<FOUR>(p, x + s.lo, s.hi - s.lo, s.zero < 0), values);
    if (!FOUR && lead) { // clips an eighth of the leading channels' reach at most (quant.SharedScale)
      float lo, hi, size;
      extremes(x, lead->hi, lo, hi, size);
      float least = widen(narrow(tame(mulRound(larger(hi, -lo), 0.875f * 4 / 7.5f))));
      if (least > f.scale) {
        f = {least, -mulRound(1.5f, least)};
        pack<false, false, false>(p, s, x + s.lo, head, f);
      }
    }
    int t = threadIdx.x;
    ((u16*)(head + s.scale))[t] = narrow(scale = f.scale);
    if (s.zero >= 0) ((u16*)(head + s.zero))[t] = narrow(f.zero);
  }

  // code codes a half of a head of a page that is in shared memory.
  DEV void code(const EncodeParams& p, const EncodeHalf& h, int half, Shared* m, u8* head) {
    if (h.set >= 0) {
      if (threadIdx.x < 4) ((u32*)(head + h.set))[threadIdx.x] = 0;
      for (int i = threadIdx.x; i < h.rowsBytes / 4; i += kEncodeThreads) ((u32*)(head + h.rows))[i] = 0;
    }
    u16* x = m->x + threadIdx.x * kRow;
    float scale = 0;
    for (int i = h.segments - 1; i >= 0; i--) { // what a segment shares comes after it
      const EncodeSegment& s = h.segment[i];
      const EncodeSegment* lead = i == 1 && h.segment[0].shared ? &h.segment[0] : nullptr;
      if (s.low >= 0) {
        segment<true>(p, s, lead, x, head, half == 1, scale);
      } else {
        segment<false>(p, s, lead, x, head, half == 1, scale);
      }
    }
    if (half == 0) return;
    blockSync();
    for (int i = 0; i < h.segments; i++) {
      const EncodeSegment& s = h.segment[i];
      spread(s, m, head, 0, s.top);
      if (s.low >= 0) spread(s, m, head, 2, s.low);
    }
  }

  DEV u16* exactHalf(const EncodeParams& p, u64 page, int head, int half) { return (u16*)(p.exact[page] + p.exactLayer) + (2 * head + half) * (kPage * D); }

  // finish codes a full page, by its place in the tables, of which shared memory does
  // not have the first tokens yet.
  DEV void finish(const EncodeParams& p, u64 page, int head, int half, int stored) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    if (!p.coded || !p.coded[page]) return;
    get(m, exactHalf(p, page, head, half), stored);
    blockSync();
    code(p, p.half[half], half, m, (u8*)(p.coded[page] + p.codedLayer) + head * p.headBytes);
  }

  // putNext puts a token into its page's half, v of the block's first warp. It says
  // whether the page is full then.
  DEV bool putNext(const EncodeParams& p, const EncodeHalf& h, const Basis& b, int head, u16* exact, int token, float (&v)[kEach]) {
    if (threadIdx.x < 32) putRow(p, h, b, head, v, exact + token * D, threadIdx.x);
    if (token != kPage - 1) return false;
    blockSync();
    return true;
  }

  // run does one half of one head of one page: block (page, head, half), or
  // (0, head, 2·sequence + half). Where K's rows are in their pages, V's come first: the
  // kernel before, which puts K's there, starts this one when all before it are done,
  // and they need not wait for it.
  DEV void run(const EncodeParams& p) {
    SHARED(memory);
    letNextStart();
    bool apart = p.rows > 0 && !p.half[0].x;
    int half = (blockIdx.z & 1) ^ (int)apart, sequence = blockIdx.z >> 1, head = blockIdx.y, stored = kPage;
    const EncodeHalf& h = p.half[half];
    int position = p.positions ? p.positions[sequence] : p.position;
    u64 page = (u64)sequence * p.pages + max(position, 0) / kPage + blockIdx.x;
    u16* exact = exactHalf(p, page, head, half);
    if (!apart || half == 0) waitBefore();
    if (position < 0) return;
    if (p.positions) {
      float v[kEach];
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j] = h.x[((u64)sequence * p.heads + head) * D + threadIdx.x % 32 + 32 * j];
      if (!putNext(p, h, basis(h, head, threadIdx.x % 32), head, exact, position % kPage, v)) return;
    } else if (p.rows > 0) {
      int first = (int)page * kPage, hi = min(position + p.rows, first + kPage) - first;
      if (h.x) {
        stored = max(position, first) - first;
        put(p, h, head, h.x + ((u64)(first + stored - position) * p.heads + head) * D, stored, hi, (Shared*)memory, exact);
      }
      if (hi < kPage) return;
    }
    finish(p, page, head, half, stored);
  }
};
