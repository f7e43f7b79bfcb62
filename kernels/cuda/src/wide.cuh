// Prompt attention with Hopper's warpgroup products (sm_90a): K and V of a page are
// spread into shared memory once for 192 query vectors, and the tensor cores read
// them there, so that neither the products nor the unpacking stand in the warps'
// way. 128 channels.
//
// Queries and codes of K are multiplied as in prefill.cuh. Weights are not coded:
// they are bfloat16, folded with the values' scales, and codes of V are bfloat16 too,
// their middle taken off, which is exact. So the tensor cores themselves add up over
// pages, and no instruction is spent on an output but where the reference moves.
//
// A warpgroup has 64 vectors, a warp 16 of them, laid out as in prefill.cuh. The
// columns of the scores are tokens in such an order that a lane has quads of them;
// the columns of the values are channels in the order of Prefill's tiles.
#pragma once
#include "prefill.cuh"

template <int K, int V, bool ASYM>
struct Wide {
  static constexpr int D = 128;
  using P = Page<D, K, V, ASYM>;
  using Plain = Prefill<D, K, V, ASYM>;
  using Rows = typename Plain::Rows;
  static_assert(!P::kSome && !kLeads<K>, "one or two whole planes");
  static constexpr int kGroups = 3, kThreads = 128 * kGroups, kVectors = 64 * kGroups, kStages = 4, kBuffers = 3;
  static constexpr int kQueries = 64 * D;  // bytes of a warpgroup's int8 queries

  // Operand is a page as the products read it: K's codes, rows of 128 channels; V's
  // levels, rows of 64 tokens as bfloat16; and what their levels mean.
  struct Operand {
    u8 keys[kTokens * D];
    u8 values[2 * kTokens * D];
    float keyScale[kTokens], keyOff[kTokens], valueScale[kTokens];
    float keyCentre[kTokens], valueCentre[kTokens];  // asymmetric
    u8 pad[3 * 256];                                 // whole KiB
  };
  static_assert(sizeof(Operand) % 1024 == 0, "operands begin at multiples of 1,024");

  struct Codes {
    float scale[2];
    int sum[2];
  };

  // loadQueries codes a warp's queries into its warpgroup's operand, rows of 128
  // bytes whose 16-byte pieces are turned by the row.
  DEV void loadQueries(Codes& c, u8* operand, const PrefillParams& p, const Rows& rows, int first, int lane) {
    int r = lane >> 2, q = lane & 3, row = threadIdx.x / 32 % 4 * 16 + r;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* x = Plain::vector(p, first + r + 8 * h);
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
      for (int s = 0; s < 2; s++) {
        u32 w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          u32 b[4];
#pragma unroll
          for (int k = 0; k < 4; k++) b[k] = asBits(fusedMulAdd(v[s][4 * i + k], inv, kMagicFloat));
          w[i] = permute<0x5410>(permute<0x0040>(b[0], b[1]), permute<0x0040>(b[2], b[3]));
          sum = dot4(w[i], 0x01010101u, sum);
        }
        *(Quad32*)(operand + (row + 8 * h) * D + ((4 * s + q) ^ r) * 16) = Quad32{w[0], w[1], w[2], w[3]};
      }
      sum += laneXor(sum, 1);
      sum += laneXor(sum, 2);
      c.sum[h] = sum;
      c.scale[h] = top / 127 * p.scale * 0.5f;
    }
  }

  // valueLevels is bit pair i of a word of V: four tokens' levels less the middle,
  // each an exact bfloat16, by twos.
  DEV Pair32 valueLevels(u32 top, u32 low, int i) {
    if (V == kTwoBits) {  // -1.5, -0.5, 0.5 and 1.5 are bfc0, bf00, 3f00 and 3fc0
      u32 select = (top >> (2 * i) & 0x03030303u) * 0x11 + 0x40404040u;
      return Pair32{permuteBy(0xc00000c0u, 0x3f3fbfbfu, select), permuteBy(0xc00000c0u, 0x3f3fbfbfu, select >> 16)};
    }
    // 16 + code is 4180 + 8·code
    u32 high = i < 3 ? top << (5 - 2 * i) : top >> 1, rest = i < 2 ? low << (3 - 2 * i) : low >> (2 * i - 3);
    u32 x = (high & 0x60606060u) | (rest & 0x18181818u) | 0x80808080u;
    return Pair32{addPair(permute<0x4140>(x, 0x41414141u), 0xc1bcc1bcu), addPair(permute<0x4342>(x, 0x41414141u), 0xc1bcc1bcu)};  // - 23.5
  }

  // spread makes a page's operand: V by two warpgroups, K by the third. Pieces of
  // 16 bytes are turned by the row.
  DEV void spread(Operand* o, const u8* page) {
    int thread = threadIdx.x;
    if (thread >= 256) {
#pragma unroll
      for (int s = 0; s < 4; s++) {
        int at = thread - 256 + 128 * s, t = at / 64 * 8 + at % 8, w = at / 8 % 8;
        u32 top = ((const u32*)(page + P::kTop))[at], low = K == kFourBits ? ((const u32*)(page + P::kLow))[at] : 0;
        int n = 8 * (4 * (t >> 5) + 2 * (t >> 4 & 1) + (t >> 1 & 1)) + 2 * (t >> 2 & 3) + (t & 1);
        *(Quad32*)(o->keys + n * D + (w ^ (n & 7)) * 16) =
            Quad32{Plain::template twice<Plain::kBothK>(top, low, 0), Plain::template twice<Plain::kBothK>(top, low, 1), Plain::template twice<Plain::kBothK>(top, low, 2), Plain::template twice<Plain::kBothK>(top, low, 3)};
      }
      return;
    }
    int lane = thread % 32, quads = thread / 32 % 4, half = thread / 128, g = lane % 4, c8 = lane / 4 % 2 * 4 + lane / 8;
    u32 top[4], low[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int at = (4 * quads + k) * (D / 4) + 8 * g + c8;
      top[k] = ((const u32*)(page + P::vTop))[at] >> (4 * half);
      low[k] = V == kFourBits ? ((const u32*)(page + P::vTop + P::plane))[at] >> (4 * half) : 0;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int n = 8 * (4 * (2 * half + i) + c8 % 4) + 2 * g + c8 / 4;
      Pair32 x[4];
#pragma unroll
      for (int k = 0; k < 4; k++) x[k] = valueLevels(top[k], low[k], i);
      u8* row = o->values + n * (2 * kTokens);
      *(Quad32*)(row + (2 * quads ^ (n & 7)) * 16) = Quad32{x[0].x, x[1].x, x[2].x, x[3].x};
      *(Quad32*)(row + ((2 * quads + 1) ^ (n & 7)) * 16) = Quad32{x[0].y, x[1].y, x[2].y, x[3].y};
    }
    if (thread < kTokens) {
      float k = widen(((const u16*)(page + P::kScale))[thread]), v = widen(((const u16*)(page + P::vScale))[thread]);
      o->keyScale[thread] = k, o->keyOff[thread] = -kMagicFloat * k;  // exact: a float16 times 1.5·2^23
      o->valueScale[thread] = v;
      if (ASYM) {
        o->keyCentre[thread] = 2 * (widen(((const u16*)(page + P::kScale + P::params))[thread]) + Plain::kMiddleK * k);
        o->valueCentre[thread] = widen(((const u16*)(page + P::vScale + P::params))[thread]) + Plain::kMiddleV * v;
      }
    }
  }

  struct Four {
    float x[4];
  };
  DEV Four four(const float* of, int quad) {
    Quad32 w = load<Quad32>(of + 4 * quad);
    return Four{{asFloat(w.x), asFloat(w.y), asFloat(w.z), asFloat(w.w)}};
  }

  // score is a lane's: sum[4j + 2h + e] is row h and column 8j + 2q + e, where
  // j = 2uv + k belongs to quad 4uv + q, token 2k + e.
  DEV int place(int uv, int t, int h) { return 4 * (2 * uv + t / 2) + 2 * h + t % 2; }
  DEV float score(int sum, float scale, float off, float centre, const Codes& c, int h) {
    constexpr int kTwice = (int)(2 * Plain::kMiddleK);
    float y = fusedMulAdd(asFloat((u32)(sum + (kMagic - kTwice * c.sum[h]))), scale, off);
    if (ASYM) y = fusedMulAdd(centre, (float)c.sum[h], y);
    return y;
  }

  // weigh turns sums into the operand of the values: weights folded with scales.
  DEV void weigh(Rows& s, const Codes& c, const int (&sum)[32], u32 (&word)[4][4], const Operand* o, const bool (&sees)[2], int q) {
    float m[2] = {sees[0] ? s.m[0] : -kMinusInf, sees[1] ? s.m[1] : -kMinusInf};  // nothing weighs anything under an infinite reference
#pragma unroll
    for (int uv = 0; uv < 4; uv++) {
      Four scale = four(o->keyScale, 4 * uv + q), off = four(o->keyOff, 4 * uv + q), value = four(o->valueScale, 4 * uv + q), centre = {}, middle = {};
      if (ASYM) centre = four(o->keyCentre, 4 * uv + q), middle = four(o->valueCentre, 4 * uv + q);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float x[4];
#pragma unroll
        for (int t = 0; t < 4; t++) {
          float w = exp2Fast(fusedMulAdd(score(sum[place(uv, t, h)], scale.x[t], off.x[t], centre.x[t], c, h), c.scale[h], -m[h]));
          s.sum[h] += w;
          if (ASYM) s.centre[h] = fusedMulAdd(w, middle.x[t], s.centre[h]);
          x[t] = w * value.x[t];
        }
        word[uv][h] = narrowPair(x[0], x[1]), word[uv][2 + h] = narrowPair(x[2], x[3]);
      }
    }
  }

  // rebase moves the reference exponents to the largest score of the page.
  DEV void rebase(Rows& s, const Codes& c, const int (&sum)[32], const Operand* o, const bool (&sees)[2], int q) {
    float top[2] = {kMinusInf, kMinusInf};
#pragma unroll
    for (int uv = 0; uv < 4; uv++) {
      Four scale = four(o->keyScale, 4 * uv + q), off = four(o->keyOff, 4 * uv + q), centre = {};
      if (ASYM) centre = four(o->keyCentre, 4 * uv + q);
#pragma unroll
      for (int t = 0; t < 4; t++)
#pragma unroll
        for (int h = 0; h < 2; h++) top[h] = larger(score(sum[place(uv, t, h)], scale.x[t], off.x[t], centre.x[t], c, h), top[h]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float m = sees[h] ? top[h] * c.scale[h] : kMinusInf;
      m = larger(m, laneXor(m, 1));
      m = larger(m, laneXor(m, 2));
      if (m > s.m[h]) Plain::move(s, h, m);
    }
  }

  // weights makes the sums of one page the operand of its values: word[k][register].
  DEV void weights(Rows& s, const Codes& c, const int (&sum)[32], u32 (&word)[4][4], const Operand* o, int token, int q) {
    bool sees[2] = {token < s.from[0], token < s.from[1]};
    float before[4] = {s.sum[0], s.sum[1], s.centre[0], s.centre[1]};
    bool first = laneAny(s.m[0] == kMinusInf || s.m[1] == kMinusInf);
#pragma unroll 1
    for (;;) {
      if (first) rebase(s, c, sum, o, sees, q);
      weigh(s, c, sum, word, o, sees, q);
      // Weights far above the reference: it is old. Once more, with a new one.
      if (first || !laneAny(!(s.sum[0] - before[0] < 65536 && s.sum[1] - before[1] < 65536))) break;
      first = true;
      s.sum[0] = before[0], s.sum[1] = before[1], s.centre[0] = before[2], s.centre[1] = before[3];
    }
  }

  // page leaves the products with the values running: operand is read until the next
  // page's groupWait.
  DEV void page(Rows& s, const Codes& c, const u8* queries, const Operand* o, Operand* next, const u8* nextStage, int token, int lane) {
    int sum[32];
    groupFence();
    groupSigned<false>(sum, groupOperand(queries), groupOperand(o->keys));
#pragma unroll
    for (int k = 1; k < 4; k++) groupSigned<true>(sum, groupOperand(queries + 32 * k), groupOperand(o->keys + 32 * k));
    groupCommit();
    if (nextStage) spread(next, nextStage);
    groupWait(sum, s.value);
    u32 word[4][4];
    weights(s, c, sum, word, o, token, lane & 3);
    groupFence(s.value);
#pragma unroll
    for (int k = 0; k < 4; k++) groupWeigh(s.value, word[k], groupOperand(o->values + 32 * k));
    groupCommit();
  }

  DEV void run(const PrefillParams& p) {
    SHARED(memory);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1, first = blockFirst + 16 * warp;
    Rows s;
    Plain::begin(s, p, first, blockLast, lane);
    int lo = p.sinks / kTokens, end = Plain::from(p, p.position + blockLast / p.group), n = end / kTokens - lo;
    u64 offset = p.codedLayer + (u64)blockIdx.y * P::bytes;
    Operand* operands = (Operand*)memory;
    u8 *queries = (u8*)(operands + kBuffers) + warp / 4 * kQueries, *ring = (u8*)(operands + kBuffers) + kGroups * kQueries;
    auto start = [&](int k) {
      if (k < n) {
        const u8* page = (const u8*)(p.coded[lo + k] + offset);
        u8* stage = ring + k % kStages * P::bytes;
        for (int at = threadIdx.x; at < P::bytes / 16; at += kThreads) copy16(stage + 16 * at, page + 16 * at);
      }
      copyCommit();
    };
    Codes c;
    start(0), start(1);
    loadQueries(c, queries, p, s, first, lane);
#pragma unroll 1
    for (int k = -1; k < n; k++) {
      // page k + 1 is there; page k is spread, and nobody reads k - 2 any more
      copyWait<1>();
      operandFence();
      blockSync();
      start(k + 3);
      Operand* next = operands + (k + 1) % kBuffers;
      const u8* stage = k + 1 < n ? ring + (k + 1) % kStages * P::bytes : nullptr;
      if (k >= 0) {
        page(s, c, queries, operands + k % kBuffers, next, stage, (lo + k) * kTokens, lane);
      } else if (stage) {
        spread(next, stage);
      }
    }
    groupWait(s.value);
    if (ASYM)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float off = s.centre[h];
        off += laneXor(off, 1);
        off += laneXor(off, 2);
#pragma unroll
        for (int i = 0; i < Plain::kTiles; i++) s.value[i][2 * h] += off, s.value[i][2 * h + 1] += off;
      }
    Plain::finish(s, p, first, blockFirst, blockLast, lane);
  }
};
