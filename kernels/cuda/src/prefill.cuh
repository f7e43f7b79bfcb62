// Prompt attention over coded pages of 128 channels, with the exact windows.
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
  const float* q;  // [row][kv head][group][128]
  float* out;
  int position;  // of row 0
  int rows;
  int heads;
  int group;
  int sinks;   // multiples of 64
  int recent;  // < 0: everything is exact
  float scale;  // of the scores, times log2(e)
};

template <int K, int V, bool ASYM>
struct Prefill {
  using P = Page<K, V, ASYM>;
  static constexpr int kWarps = 4, kVectors = 16 * kWarps, kStages = 4;
  static constexpr int kOperand = kTokens * kDim;  // bytes of a page's K, as the tensor cores read it
  static constexpr int kShared = kStages * P::bytes + 2 * kOperand;
  static constexpr float kMiddleK = K == kFourBits ? 7.5f : 1.5f, kMiddleV = V == kFourBits ? 7.5f : 1.5f;

  // Rows is a lane's two vectors, r and r + 8 of its warp.
  struct Rows {
    int position[2];  // -1: beyond the last
    int from[2];      // coded tokens end here
    float m[2], sum[2], middle[2], centre[2];
    float value[16][4];  // tile 4i + j, channels 32q + 8i + 4e + j
  };

  struct Codes {
    u32 word[4][4];  // [bit pair][register of the operand]
    float scale[2];
    int sum[2];
  };

  DEV int from(const PrefillParams& p, int position) {
    int n = position + 1;
    int f = p.recent < 0 || n < p.recent ? 0 : (n - p.recent) / kTokens * kTokens;
    return f > p.sinks ? f : 0;
  }

  DEV const float* vector(const PrefillParams& p, int v) { return p.q + ((u64)(v / p.group * p.heads + blockIdx.y) * p.group + v % p.group) * kDim; }

  DEV void loadQueries(Codes& c, const PrefillParams& p, const Rows& rows, int first, int lane) {
    int r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = vector(p, first + r + 8 * h);
      float v[2][16], top = 0;
#pragma unroll
      for (int s = 0; s < 2; s++)
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
      int sum = 0;
#pragma unroll
      for (int s = 0; s < 2; s++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          u32 b[4];
#pragma unroll
          for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(v[s][4 * i + k], inv, kMagicFloat));
          u32 w = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
          c.word[i][h + 2 * s] = w;
          sum = dot4(w, 0x01010101u, sum);
        }
      sum += laneXor(sum, 1);
      sum += laneXor(sum, 2);
      c.sum[h] = sum;
      c.scale[h] = top / 127 * p.scale * 0.5f;
    }
  }

  // twice is two times the codes of bit pair i: the products are whole numbers
  // when the middle of the levels is taken off.
  DEV u32 twice(u32 top, u32 low, int i) {
    if (K != kFourBits) return (i == 0 ? top << 1 : top >> (2 * i - 1)) & 0x06060606u;
    u32 high = i == 0 ? top << 3 : i == 1 ? top << 1 : top >> (2 * i - 3);
    return (high & 0x18181818u) | ((i == 0 ? low << 1 : low >> (2 * i - 1)) & 0x06060606u);
  }

  DEV u32 keyWord(const u8* plane, int quad, int word, int j) { return load<u32>(plane + (quad >> 1) * 256 + word * 32 + (quad & 1) * 16 + 4 * j); }

  // spread makes a page's K what all warps multiply with, a quarter of it each:
  // [half of the page][token of the quad][two bit pairs][lane] of 16 bytes.
  DEV void spread(u8* operand, const u8* page, int warp, int lane) {
    int r = lane >> 2, q = lane & 3;
#pragma unroll
    for (int u = 0; u < 2; u++) {
      int j = warp;
      u32 a = keyWord(page + P::kTop, 8 * u + r, q, j), b = keyWord(page + P::kTop, 8 * u + r, 4 + q, j), al = a, bl = b;
      if (K == kFourBits) al = keyWord(page + P::kLow, 8 * u + r, q, j), bl = keyWord(page + P::kLow, 8 * u + r, 4 + q, j);
#pragma unroll
      for (int i = 0; i < 4; i += 2)
        *(Quad32*)(operand + ((u * 4 + j) * 2 + i / 2) * 512 + lane * 16) = Quad32{twice(a, al, i), twice(b, bl, i), twice(a, al, i + 1), twice(b, bl, i + 1)};
    }
  }

  // scores: x[u][j][e] of token 4(8u + 2q + e%2) + j and row e/2.
  DEV void scores(float (&x)[2][4][4], const u8* operand, const u8* page, const Codes& c, int lane) {
    int q = lane & 3;
    constexpr int kTwice = (int)(2 * kMiddleK);
    int init[2] = {kMagic - kTwice * c.sum[0], kMagic - kTwice * c.sum[1]};
#pragma unroll
    for (int u = 0; u < 2; u++) {
      int sum[4][4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        Quad32 b = load<Quad32>(operand + (u * 4 + j) * 1024 + lane * 16), d = load<Quad32>(operand + (u * 4 + j) * 1024 + 512 + lane * 16);
        mmaSignedFrom(sum[j], c.word[0][0], c.word[0][1], c.word[0][2], c.word[0][3], b.x, b.y, init[0], init[1]);
        mmaSigned(sum[j], c.word[1][0], c.word[1][1], c.word[1][2], c.word[1][3], b.z, b.w);
        mmaSigned(sum[j], c.word[2][0], c.word[2][1], c.word[2][2], c.word[2][3], d.x, d.y);
        mmaSigned(sum[j], c.word[3][0], c.word[3][1], c.word[3][2], c.word[3][3], d.z, d.w);
      }
#pragma unroll
      for (int e = 0; e < 2; e++) {
        Pair32 s0 = load<Pair32>(page + P::kScale + 8 * (8 * u + 2 * q + e));
        float scale[4] = {widenLow(s0.x), widenHigh(s0.x), widenLow(s0.y), widenHigh(s0.y)}, zero[4];
        if (ASYM) {
          Pair32 z = load<Pair32>(page + P::kScale + P::params + 8 * (8 * u + 2 * q + e));
          zero[0] = widenLow(z.x), zero[1] = widenHigh(z.x), zero[2] = widenLow(z.y), zero[3] = widenHigh(z.y);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
          float off = -kMagicFloat * scale[j];  // exact: a float16 times 1.5·2^23
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float y = fusedMulAdd(asFloat((u32)sum[j][2 * h + e]), scale[j], off);
            if (ASYM) y += (zero[j] + kMiddleK * scale[j]) * (2 * (float)c.sum[h]);
            x[u][j][2 * h + e] = y;
          }
        }
      }
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
        Pair32 s0 = load<Pair32>(stage + P::vScale + 8 * (8 * u + 2 * q + e));
        float scale[4] = {widenLow(s0.x), widenHigh(s0.x), widenLow(s0.y), widenHigh(s0.y)}, centre[4];
        if (ASYM) {
          Pair32 z = load<Pair32>(stage + P::vScale + P::params + 8 * (8 * u + 2 * q + e));
          centre[0] = widenLow(z.x) + kMiddleV * scale[0], centre[1] = widenHigh(z.x) + kMiddleV * scale[1];
          centre[2] = widenLow(z.y) + kMiddleV * scale[2], centre[3] = widenHigh(z.y) + kMiddleV * scale[3];
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float w = exp2Fast(fusedMulAdd(x[u][j][2 * h + e], c.scale[h], -m[h]));
            s.sum[h] += w;
            if (ASYM) s.centre[h] += w * centre[j];
            w *= scale[j];
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
        }
      s.middle[h] += step[h] * (float)all;
    }
    Quad32 v[2][2];
    auto read = [&](int plane) {
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int e = 0; e < 2; e++) v[u][e] = Decode<K, V, ASYM, 8>::valueWords(stage + P::vTop + plane * P::plane, 8 * u + 2 * q + e, r, q);
    };
#pragma unroll
    for (int half = 0; half < (V == kFourBits ? 2 : 1); half++) {
      read(half);
      // of a 4-bit code the top plane weighs four times the other
      float unit = V == kFourBits && half == 0 ? 4 : 1;
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int sum[4];  // of at most 64·255·192, as the bits of 2^23 + sum
          mmaWeightFrom(sum, word[0][0], word[0][1], word[0][2], word[0][3], wordOf(v[0][0], j) & maskOf(i), wordOf(v[0][1], j) & maskOf(i), kWhole);
          mmaWeight(sum, word[1][0], word[1][1], word[1][2], word[1][3], wordOf(v[1][0], j) & maskOf(i), wordOf(v[1][1], j) & maskOf(i));
#pragma unroll
          for (int e = 0; e < 4; e++) s.value[4 * i + j][e] = fusedMulAdd(unit * step[e >> 1], asFloat((u32)sum[e]) - kWholeFloat, s.value[4 * i + j][e]);
        }
    }
  }

  // move raises row h's reference exponent.
  DEV void move(Rows& s, int h, float m) {
    float shrink = exp2Fast(s.m[h] - m);
    s.m[h] = m;
    s.sum[h] *= shrink, s.middle[h] *= shrink, s.centre[h] *= shrink;
#pragma unroll
    for (int i = 0; i < 16; i++) s.value[i][2 * h] *= shrink, s.value[i][2 * h + 1] *= shrink;
  }

  // settle makes the sums over codes plain values.
  DEV void settle(Rows& s) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float off = -kMiddleV * s.middle[h] + (ASYM ? s.centre[h] : 0);
      off += laneXor(off, 1);
      off += laneXor(off, 2);
#pragma unroll
      for (int i = 0; i < 16; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) s.value[i][2 * h + e] = s.value[i][2 * h + e] * (1.0f / (1 << 2 * (i / 4))) + off;
    }
  }

  DEV const u8* row(const PrefillParams& p, int t, int half) {
    return (const u8*)(p.exact[t / kTokens] + p.exactLayer) + (2 * blockIdx.y + half) * (kTokens * kDim * 2) + t % kTokens * kDim * 2;
  }

  // exact adds 16 tokens in float16.
  DEV void exact(Rows& s, const PrefillParams& p, const u32 (&query)[8][4], int first, int last, int lane) {
    int r = lane >> 2, q = lane & 3;
    float x[2][4] = {};
#pragma unroll
    for (int n = 0; n < 2; n++) {
      int t = min(first + 8 * n + r, last);
#pragma unroll
      for (int k = 0; k < 4; k++) {
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
      Pair32 v[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        int t = first + 2 * q + (k & 1) + 8 * (k >> 1);
        v[k] = t <= last ? load<Pair32>(row(p, t, 1) + (32 * (r >> 1) + 8 * i + 4 * (r & 1)) * 2) : Pair32{0, 0};
      }
      mmaHalf(s.value[4 * i], a[0], a[1], a[2], a[3], permute<0x5410>(v[0].x, v[1].x), permute<0x5410>(v[2].x, v[3].x));
      mmaHalf(s.value[4 * i + 1], a[0], a[1], a[2], a[3], permute<0x7632>(v[0].x, v[1].x), permute<0x7632>(v[2].x, v[3].x));
      mmaHalf(s.value[4 * i + 2], a[0], a[1], a[2], a[3], permute<0x5410>(v[0].y, v[1].y), permute<0x5410>(v[2].y, v[3].y));
      mmaHalf(s.value[4 * i + 3], a[0], a[1], a[2], a[3], permute<0x7632>(v[0].y, v[1].y), permute<0x7632>(v[2].y, v[3].y));
    }
  }

  DEV void run(const PrefillParams& p) {
    SHARED(ring);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, r = lane >> 2, q = lane & 3;
    int blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1, first = blockFirst + 16 * warp;
    Rows s;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int v = first + r + 8 * h;
      s.position[h] = v <= blockLast ? p.position + v / p.group : -1;
      s.from[h] = s.position[h] < 0 ? 0 : from(p, s.position[h]);
      s.m[h] = kMinusInf, s.sum[h] = s.middle[h] = s.centre[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
    int lo = p.sinks / kTokens, end = from(p, p.position + blockLast / p.group), n = end / kTokens - lo;
    u64 offset = p.codedLayer + (u64)blockIdx.y * P::bytes;
    auto start = [&](int k) {
      if (k < n) {
        const u8* page = (const u8*)(p.coded[lo + k] + offset);
        u8* stage = ring + k % kStages * P::bytes;
        for (int at = threadIdx.x; at < P::bytes / 16; at += 32 * kWarps) {
          int v = at - P::vTop / 16;
          copy16(stage + 16 * (v >= 0 ? P::vTop / 16 + (v ^ (v >> 3 & 6)) : at), page + 16 * at);
        }
      }
      copyCommit();
    };
    u8* operands = ring + kStages * P::bytes;
    Codes c;
    start(0), start(1);
    loadQueries(c, p, s, first, lane);
    for (int k = -1; k < n; k++) {
      // page k + 1 is there; page k is spread, and nobody reads k - 1 any more
      copyWait<1>();
      blockSync();
      start(k + 3);
      if (k + 1 < n) spread(operands + (k + 1) % 2 * kOperand, ring + (k + 1) % kStages * P::bytes, warp, lane);
      if (k >= 0) coded(s, c, operands + k % 2 * kOperand, ring + k % kStages * P::bytes, (lo + k) * kTokens, lane);
    }
    settle(s);
    u32 query[8][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = vector(p, first + r + 8 * h);
#pragma unroll
      for (int k = 0; k < 8; k++)
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
      float inv = s.sum[h] > 0 ? 1 / s.sum[h] : 0;
      float* out = p.out + (vector(p, first + r + 8 * h) - p.q);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          u32 w[4];
#pragma unroll
          for (int j = 0; j < 4; j++) w[j] = asBits(s.value[4 * i + j][2 * h + e] * inv);
          *(Quad32*)(out + 32 * q + 8 * i + 4 * e) = Quad32{w[0], w[1], w[2], w[3]};
        }
    }
  }
};
