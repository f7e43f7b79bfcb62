// The hack layouts (docs/formats.md): attention of any rows, and coding. They are
// the baseline that others are compared with: right before fast, one block a query
// vector, which reads its tokens alone.
#pragma once
#include "encode.cuh"
#include "page.cuh"

// A half of a coded page of one head: offsets from the head.
struct HackHalf {
  int min, scale, sums, sumBytes;  // sums -1: none stored
  int planes[4];                   // most significant first
  int begin, end;                  // the half's bytes
};

// What the layouts are, of both kernels.
struct HackFormat {
  HackHalf half[2];
  u64 seed;
  int layer, headBytes;
  int v2, stochastic, rqe;
  int pageTokens, partition, parts, partWidth;
  int planes;  // of 2 bits
  int sinks;
  int pad;
};

DEV u64 mix(u64 z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

// HackRounding is quant.Rounding.
struct HackRounding {
  u64 key;
  bool stochastic;

  DEV HackRounding of(const HackFormat& f, int head, int stream, int position) {
    u64 key = mix(f.seed ^ 0x9e3779b97f4a7c15ull);
    key = mix(key ^ (u64)f.layer << 32 ^ (u64)head << 8 ^ (u64)stream);
    return HackRounding{mix(key ^ (u64)position), f.stochastic != 0};
  }
  DEV u32 level(const HackRounding& r, float y, float last, int element) {
    y = y < 0 ? 0 : y > last ? last : y;
    if (!r.stochastic) return (u32)(int)addRound(y, 0.5f);
    int whole = (int)y;
    float u = (float)(u32)(mix(r.key ^ (u64)element) >> 40) * (1.0f / (1 << 24));
    return (u32)(whole + (u < subRound(y, (float)whole) ? 1 : 0));
  }
};

DEV u16 hackNarrow(bool v2, float x) {
  u32 bits = asBits(x);
  return v2 ? (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : narrow(x);
}
DEV float hackWiden(bool v2, u16 x) { return v2 ? asFloat((u32)x << 16) : widen(x); }

struct HackAttendParams {
  HackFormat f;
  const u64* coded;  // [sequence][pages]
  const u64* exact;
  u64 codedLayer, exactLayer;
  const float* q;  // [row][kv head][group][D]
  float* out;
  const int* positions;  // of the rows, each of a sequence of its own; null: rows of one, from position on
  int position;
  int pages, heads, group;
  float scale;
  int allExact;  // prompt rows of formats that attend exactly there
};

template <int D>
struct HackAttend {
  static constexpr int kWarps = 4, kMaxTokens = 128, kEach = D / 32, kHalves = 128 / D;

  struct Affine {
    float scale, min;
    u32 sum;
  };
  struct Warp {
    float weight[kMaxTokens];  // of all tokens
    float query[D];
    u32 q[D / 4];                        // the query's codes
    u32 p[kMaxTokens / 4];               // the weights' codes, of one part
    Affine a[4];                         // of the query's parts
    float base;
  };
  struct Shared {
    Warp warp[kWarps];
    State states[kWarps];
    float values[kWarps][32 * 4];
  };

  // quantise codes up to four values a lane, of which n are there, as one operand.
  DEV Affine quantise(u32 (&code)[4], const float (&x)[4], int n, const HackRounding& round, const int (&element)[4]) {
    float lo = x[0], hi = x[0];
    for (int j = 1; j < 4; j++)
      if (j < n) lo = x[j] < lo ? x[j] : lo, hi = x[j] > hi ? x[j] : hi;
    for (int mask = 16; mask > 0; mask /= 2) {
      float l = laneXor(lo, mask), h = laneXor(hi, mask);
      lo = l < lo ? l : lo, hi = h > hi ? h : hi;
    }
    Affine a = {divRound(subRound(hi, lo), 255), lo, 0};
    if (a.scale < 1e-30f) a.scale = 1;
    float inv = divRound(1, a.scale);
    for (int j = 0; j < 4; j++)
      if (j < n) {
        code[j] = HackRounding::level(round, mulRound(subRound(x[j], lo), inv), 255, element[j]);
        a.sum += code[j];
      }
    for (int mask = 16; mask > 0; mask /= 2) a.sum += laneXor(a.sum, mask);
    return a;
  }

  DEV float param(const HackAttendParams& p, const u8* page, int at, int i) { return hackWiden(p.f.v2, ((const u16*)(page + at))[i]); }
  DEV double storedSum(const HackHalf& h, const u8* page, int i) { return h.sumBytes == 1 ? page[h.sums + i] : ((const u16*)(page + h.sums))[i]; }

  // codeQuery codes the query's parts, with K's scales of a block folded in (v2,
  // where page is not null).
  DEV void codeQuery(const HackAttendParams& p, Warp* w, const HackRounding& round, const u8* page, int block, int element, int lane) {
    int each = p.f.partWidth / 32;  // values of a lane in a part
    double base = 0;
    for (int part = 0; part < p.f.parts; part++) {
      float x[4];
      u32 code[4];
      int of[4];
      for (int j = 0; j < 4; j++)
        if (j < each) {
          int c = part * p.f.partWidth + 32 * j + lane;
          x[j] = w->query[c];
          if (page) {
            base += (double)x[j] * param(p, page, p.f.half[0].min, block * D + c);
            x[j] = mulRound(x[j], param(p, page, p.f.half[0].scale, block * D + c));
          }
          of[j] = element + c;
        }
      Affine a = quantise(code, x, each, round, of);
      for (int j = 0; j < 4; j++)
        if (j < each) ((u8*)w->q)[part * p.f.partWidth + 32 * j + lane] = (u8)code[j];
      if (lane == 0) w->a[part] = a;
    }
    for (int mask = 16; mask > 0; mask /= 2) base += laneXor(base, mask);
    if (lane == 0) w->base = (float)base;
    warpSync();
  }

  // codedScore is q·k of a token by its codes.
  DEV float codedScore(const HackAttendParams& p, const Warp* w, const u8* page, int t) {
    const HackHalf& h = p.f.half[0];
    double s = p.f.v2 ? w->base : 0;
    int words = p.f.partWidth / 16;
    for (int part = 0; part < p.f.parts; part++) {
      u32 dot = 0, sum = 0;
      for (int k = 0; k < p.f.planes; k++) {
        const u32* plane = (const u32*)(page + h.planes[k]) + t / 8 * (D / 16) * 8 + t % 8;
        u32 d = 0, n = 0;
        for (int i = part * words; i < (part + 1) * words; i++) {
          u32 word = plane[8 * i];
#pragma unroll
          for (int pair = 0; pair < 4; pair++) {
            u32 four = word >> (2 * pair) & 0x03030303u;
            d = dot4Whole(w->q[4 * i + pair], four, d), n += sum4(four);
          }
        }
        dot = 4 * dot + d, sum = 4 * sum + n;
      }
      const Affine& a = w->a[part];
      double codes = h.sums >= 0 ? storedSum(h, page, t * p.f.parts + part) : sum;
      if (p.f.v2) {
        s += (double)a.scale * dot + (double)a.min * codes;
      } else {
        double sk = param(p, page, h.scale, t * p.f.parts + part), mk = param(p, page, h.min, t * p.f.parts + part);
        s += sk * ((double)a.scale * dot + (double)a.min * codes) + mk * ((double)a.scale * a.sum + (double)p.f.partWidth * a.min);
      }
    }
    return (float)s;
  }

  DEV const u16* exactRow(const HackAttendParams& p, const u8* page, int half, int t) {
    return (const u16*)(page + p.exactLayer) + ((2 * blockIdx.y + half) * p.f.pageTokens + t) * D;
  }

  // blockValues adds a block's values by their codes; weight is 0 for tokens that
  // are not read so. A lane has the four channels of word lane of a quad of tokens.
  DEV void blockValues(const HackAttendParams& p, Warp* w, const float (&weight)[4], const HackRounding& round, const u8* page, int block, int first,
                       float (&value)[4], int lane) {
    const HackHalf& h = p.f.half[1];
    int width = p.f.partition, each = width / 32, at = lane % (D / 4), mine = at / 8 * 32 / p.f.partWidth;
    for (int part = 0; part < (p.f.v2 ? p.f.parts : 1); part++) {
      float x[4];
      u32 code[4];
      int of[4];
      double base = 0;
      for (int j = 0; j < 4; j++)
        if (j < each) {
          int t = block * width + 32 * j + lane;
          x[j] = weight[j], of[j] = first + t;
          if (p.f.v2) {
            int i = t * p.f.parts + part;
            of[j] = (first + t) * p.f.parts + part;
            if (x[j] != 0) {
              base += (double)x[j] * param(p, page, h.min, i);
              x[j] = mulRound(x[j], param(p, page, h.scale, i));
            }
          }
        }
      Affine a = quantise(code, x, each, round, of);
      warpSync();  // the last part's codes were read
      for (int j = 0; j < 4; j++)
        if (j < each) ((u8*)w->p)[32 * j + lane] = (u8)code[j];
      for (int mask = 16; mask > 0; mask /= 2) base += laneXor(base, mask);
      warpSync();
      u32 dot[4] = {}, sum[4] = {};
      for (int k = 0; k < p.f.planes; k++) {
        const u32* plane = (const u32*)(page + h.planes[k]);
        for (int i = 0; i < 4; i++) dot[i] *= 4, sum[i] *= 4;
        for (int quad = lane / (D / 4); quad < width / 4; quad += kHalves) {
          u32 word = plane[(block * width / 4 + quad) * (D / 4) + at];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            u32 four = word >> (2 * i) & 0x03030303u;
            dot[i] = dot4Whole(w->p[quad], four, dot[i]), sum[i] += sum4(four);
          }
        }
      }
      for (int i = 0; i < 4; i++) {
        if (D == 64) dot[i] += laneXor(dot[i], 16), sum[i] += laneXor(sum[i], 16);
        if (lane >= D / 4 || (p.f.v2 && part != mine)) continue;
        int c = at / 8 * 32 + 8 * i + at % 8;
        double codes = h.sums >= 0 ? storedSum(h, page, block * D + c) : sum[i];
        if (p.f.v2) {
          value[i] += (float)((double)a.scale * dot[i] + (double)a.min * codes + base);
        } else {
          double sv = param(p, page, h.scale, block * D + c), mv = param(p, page, h.min, block * D + c);
          value[i] += (float)(sv * ((double)a.scale * dot[i] + (double)a.min * codes) + mv * ((double)a.scale * a.sum + (double)width * a.min));
        }
      }
    }
  }

  // run: block (row and query of a KV head, KV head).
  DEV void run(const HackAttendParams& p) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    const HackFormat& f = p.f;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x / p.group, head = blockIdx.y * p.group + blockIdx.x % p.group;
    Warp* w = &m->warp[warp];
    int position = p.positions ? p.positions[row] : p.position + row, n = position + 1, closed = f.rqe ? n / f.partition * f.partition : n;
    int fromK = p.allExact ? 0 : f.v2 ? closed : n, fromV = p.allExact ? 0 : closed;
    const u64 *coded = p.coded, *exact = p.exact;
    if (p.positions) coded += (u64)row * p.pages, exact += (u64)row * p.pages;
    u64 vector = ((u64)row * p.heads + blockIdx.y) * p.group + blockIdx.x % p.group;
    for (int c = lane; c < D; c += 32) w->query[c] = p.q[vector * D + c];
    warpSync();
    HackRounding roundQ = HackRounding::of(f, head, 2, position), roundP = HackRounding::of(f, head, 3, position);
    if (!f.v2) codeQuery(p, w, roundQ, nullptr, 0, 0, lane);
    float top = kMinusInf, sum = 0, value[4] = {};
    int each = f.pageTokens / 32;
    for (int k = warp; k * f.pageTokens < n; k += kWarps) {
      int first = k * f.pageTokens, blocks = f.pageTokens / f.partition;
      bool anyCode = first < max(fromK, fromV);
      const u8* codes = anyCode ? (const u8*)coded[k] + p.codedLayer + (u64)blockIdx.y * f.headBytes : nullptr;
      const u8* page = first < f.sinks || first + f.pageTokens > min(fromK, fromV) ? (const u8*)exact[k] : nullptr;
      float x[4];
      int codedBlock = -1;
      for (int j = 0; j < 4; j++) {
        if (j >= each) break;
        int t = 32 * j + lane, pos = first + t, block = 32 * j / f.partition;
        if (f.v2 && block != codedBlock && first + block * f.partition < min(fromK, n)) {
          warpSync();
          codeQuery(p, w, roundQ, codes, block, (first + block * f.partition) * D, lane);
          codedBlock = block;
        }
        x[j] = kMinusInf;
        if (pos >= n) continue;
        if (pos >= f.sinks && pos < fromK) {
          x[j] = codedScore(p, w, codes, t);
        } else {
          const u16* k16 = exactRow(p, page, 0, t);
          float s = 0;
          for (int c = 0; c < D; c++) s = fusedMulAdd(w->query[c], widen(k16[c]), s);
          x[j] = s;
        }
        x[j] *= p.scale;
      }
      float best = kMinusInf;
      for (int j = 0; j < 4; j++)
        if (j < each) best = larger(best, x[j]);
      for (int mask = 16; mask > 0; mask /= 2) best = larger(best, laneXor(best, mask));
      float now = larger(top, best), shrink = exp2Fast(top - now), total = 0;
      top = now;
      for (int i = 0; i < 4; i++) value[i] *= shrink;
      float weight[4] = {};
      for (int j = 0; j < 4; j++)
        if (j < each) {
          weight[j] = exp2Fast(x[j] - now);
          total += weight[j];
          w->weight[32 * j + lane] = weight[j];
        }
      for (int mask = 16; mask > 0; mask /= 2) total += laneXor(total, mask);
      sum = sum * shrink + total;
      warpSync();
      for (int b = 0; b < blocks && first + b * f.partition < min(fromV, n); b++) {
        float some[4] = {};
        for (int j = 0; j < 4; j++) {
          int t = b * f.partition + 32 * j + lane, pos = first + t;
          if (32 * j < f.partition) some[j] = pos >= f.sinks && pos < min(fromV, n) ? w->weight[t] : 0;
        }
        blockValues(p, w, some, roundP, codes, b, first, value, lane);
      }
      for (int t = lane / (D / 4); t < f.pageTokens; t += kHalves) {
        int pos = first + t, at = lane % (D / 4);
        if (pos >= n || (pos >= f.sinks && pos < fromV)) continue;
        const u16* v16 = exactRow(p, page, 1, t) + at / 8 * 32 + at % 8;
        for (int i = 0; i < 4; i++) value[i] = fusedMulAdd(w->weight[t], widen(v16[8 * i]), value[i]);
      }
      warpSync();
    }
    if (lane == 0) m->states[warp] = State{top, sum};
    for (int i = 0; i < 4; i++) {
      if (D == 64) value[i] += laneXor(value[i], 16);
      m->values[warp][4 * lane + i] = value[i];
    }
    blockSync();
    for (int i = threadIdx.x; i < D; i += 32 * kWarps) {
      float best = kMinusInf, all = 0, v = 0;
      for (int k = 0; k < kWarps; k++) best = larger(best, m->states[k].m);
      for (int k = 0; k < kWarps; k++)
        if (m->states[k].sum > 0) {
          float shrink = exp2Fast(m->states[k].m - best);
          all += shrink * m->states[k].sum, v += shrink * m->values[k][i];
        }
      p.out[vector * D + i / 32 * 32 + 8 * (i % 4) + i % 32 / 4] = all > 0 ? v / all : 0;
    }
  }
};

struct HackEncodeParams {
  HackFormat f;
  const float* x[2];  // [row][head][dim]: K, V, after RoPE
  const u64* exact;   // [page] of the sequence
  const u64* coded;   // 0 where a page has no codes
  u64 exactLayer, codedLayer;
  int position, rows, heads;
  int pad;
};

template <int D>
struct HackEncode {
  static constexpr int kMaxTokens = 128, kThreads = 256;

  struct Shared {
    u16 x[kMaxTokens * D];
    u8 code[kMaxTokens * D];
  };

  // put stores min and scale, and gives what codes are made with.
  DEV void put(const HackFormat& f, const HackHalf& h, u8* head, int i, float lo, float hi, float& min, float& inv) {
    u16 stored = hackNarrow(f.v2, lo);
    min = hackWiden(f.v2, stored);
    ((u16*)(head + h.min))[i] = stored;
    float reach = subRound(hi, min);
    stored = hackNarrow(f.v2, divRound(reach > 0 ? reach : 0, (float)((1 << 2 * f.planes) - 1)));
    if (hackWiden(f.v2, stored) == 0) stored = hackNarrow(f.v2, 1);
    ((u16*)(head + h.scale))[i] = stored;
    inv = divRound(1, hackWiden(f.v2, stored));
  }

  // tokens codes tokens [from, to) with parameters of their own, a warp each.
  DEV void tokens(const HackEncodeParams& p, Shared* m, u8* head, int half, int first, int from, int to) {
    const HackFormat& f = p.f;
    int lane = threadIdx.x % 32, each = f.partWidth / 32;
    float last = (float)((1 << 2 * f.planes) - 1);
    for (int t = from + threadIdx.x / 32; t < to; t += kThreads / 32) {
      HackRounding round = HackRounding::of(f, blockIdx.y, half, first + t);
      for (int part = 0; part < f.parts; part++) {
        const u16* x = m->x + t * D + part * f.partWidth + lane;
        float lo = widen(x[0]), hi = lo, min, inv;
        for (int j = 1; j < each; j++) widenRange(widen(x[32 * j]), lo, hi);
        for (int mask = 16; mask > 0; mask /= 2) {
          float l = laneXor(lo, mask), h = laneXor(hi, mask);
          widenRange(l, lo, hi);
          widenRange(h, lo, hi);
        }
        put(f, f.half[half], head, t * f.parts + part, lo, hi, min, inv);
        for (int j = 0; j < each; j++) {
          int c = part * f.partWidth + 32 * j + lane;
          m->code[t * D + c] = (u8)HackRounding::level(round, mulRound(subRound(widen(x[32 * j]), min), inv), last, c);
        }
      }
    }
  }

  // channels codes tokens [from, to) of one block with parameters of each channel.
  DEV void channels(const HackEncodeParams& p, Shared* m, u8* head, int half, int first, int block, int from, int to) {
    const HackFormat& f = p.f;
    float last = (float)((1 << 2 * f.planes) - 1);
    for (int c = threadIdx.x; c < D; c += kThreads) {
      float lo = widen(m->x[from * D + c]), hi = lo, min, inv;
      for (int t = from + 1; t < to; t++) widenRange(widen(m->x[t * D + c]), lo, hi);
      put(f, f.half[half], head, block * D + c, lo, hi, min, inv);
      for (int t = from; t < to; t++) {
        HackRounding round = HackRounding::of(f, blockIdx.y, half, first + t);
        m->code[t * D + c] = (u8)HackRounding::level(round, mulRound(subRound(widen(m->x[t * D + c]), min), inv), last, c);
      }
    }
  }

  // pack writes the planes' words of tokens [from, to), and sums of codes.
  DEV void pack(const HackEncodeParams& p, Shared* m, u8* head, int half, int from, int to) {
    const HackFormat& f = p.f;
    const HackHalf& h = f.half[half];
    for (int i = threadIdx.x; i < f.planes * f.pageTokens * (D / 16); i += kThreads) {
      int k = i / (f.pageTokens * (D / 16)), w = i % (f.pageTokens * (D / 16)), shift = 2 * (f.planes - 1 - k);
      int token = half ? w / (D / 4) * 4 : w / (D / 2) * 8 + w % 8, c = half ? w / 8 % (D / 32) * 32 + w % 8 : w / 8 % (D / 16) * 16;
      if (token < from || token >= to) continue;
      u32 word = 0;
      for (int b = 0; b < 4; b++)
        for (int pair = 0; pair < 4; pair++) {
          u32 code = half ? m->code[(token + b) * D + c + 8 * pair] : m->code[token * D + c + 4 * pair + b];
          word |= (code >> shift & 3) << (8 * b + 2 * pair);
        }
      ((u32*)(head + h.planes[k]))[w] = word;
    }
    if (h.sums < 0) return;
    int blocks = (to - 1) / f.partition - from / f.partition + 1, n = half ? blocks * D : (to - from) * f.parts;
    for (int i = threadIdx.x; i < n; i += kThreads) {
      u32 sum = 0;
      int at;
      if (half) {
        int block = from / f.partition + i / D;
        at = block * D + i % D;
        for (int t = block * f.partition; t < min((block + 1) * f.partition, to); t++) sum += m->code[t * D + i % D];
      } else {
        at = from * f.parts + i;
        for (int c = 0; c < f.partWidth; c++) sum += m->code[at / f.parts * D + at % f.parts * f.partWidth + c];
      }
      if (h.sumBytes == 1) {
        head[h.sums + at] = (u8)sum;
      } else {
        ((u16*)(head + h.sums))[at] = (u16)sum;
      }
    }
  }

  // run does one half of one head of one page: block (page, head, half).
  DEV void run(const HackEncodeParams& p) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    const HackFormat& f = p.f;
    int half = blockIdx.z, page = p.position / f.pageTokens + blockIdx.x, first = page * f.pageTokens;
    int lo = max(p.position, first) - first, hi = min(p.position + p.rows, first + f.pageTokens) - first;
    u16* exact = (u16*)(p.exact[page] + p.exactLayer) + (2 * blockIdx.y + half) * (f.pageTokens * D);
    for (int i = threadIdx.x; i < hi * D; i += kThreads) {
      if (i >= lo * D) exact[i] = narrow(tame(p.x[half][((u64)(first + i / D - p.position) * p.heads + blockIdx.y) * D + i % D]));
      m->x[i] = exact[i];  // the thread's own, or an earlier launch's
    }
    if (!p.coded || !p.coded[page]) return;
    u8* head = (u8*)(p.coded[page] + p.codedLayer) + (u64)blockIdx.y * f.headBytes;
    if (lo == 0)
      for (int i = f.half[half].begin + threadIdx.x; i < f.half[half].end; i += kThreads) head[i] = 0;
    bool atOnce = !f.v2 && half == 0;
    int from = atOnce ? lo : lo / f.partition * f.partition, to = atOnce || !f.rqe ? hi : hi / f.partition * f.partition;
    if (from >= to) return;
    for (int i = from * D + threadIdx.x; i < (to + 3) / 4 * 4 * D; i += kThreads) m->code[i] = 0;
    blockSync();
    if (f.v2 == (half == 1)) {
      tokens(p, m, head, half, first, max(from, f.sinks - first), to);
    } else {
      for (int b = from / f.partition; b * f.partition < to; b++) {
        int start = max(b * f.partition, f.sinks - first), end = min((b + 1) * f.partition, to);
        if (start < end) channels(p, m, head, half, first, b, start, end);
      }
    }
    blockSync();
    pack(p, m, head, half, from, to);
  }
};
