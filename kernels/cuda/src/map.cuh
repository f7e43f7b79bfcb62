// Products of many rows with a balanced basis's matrices: keys as mapHead multiplies
// them, bit for bit, queries on tensor cores.
#pragma once
#include "encode.cuh"

// Keys of a page's head: a thread has eight tokens and eight channels, for which it
// reads sixteen numbers of shared memory an input. Block (page, head).
template <int D>
struct MapKeys {
  static constexpr int kPage = 64, kWide = 8, kThreads = 8 * D / kWide;  // kWide: channels of a thread
  static constexpr int kRow = D + 4;  // of a token: those that a warp reads at once lie in different banks
  static constexpr int kInputs = 16, kStages = 3;  // of the matrix's ring

  struct Shared {
    float x[kPage * kRow];
    float ring[kStages][kInputs * D];
  };

  DEV void fetch(float* to, const float* m) {
#pragma unroll
    for (int i = 0; i < kInputs * D; i += 4 * kThreads) copy16(to + i + 4 * threadIdx.x, m + i + 4 * threadIdx.x);
  }

  // rows puts tokens [lo, hi) of the page, x being those of token lo, into shared
  // memory with the shift added, and zeros for the others.
  DEV void rows(const EncodeParams& p, const EncodeHalf& h, int head, const float* x, int lo, int hi, float* to) {
    constexpr int kQuads = D / 4, kStep = kThreads / kQuads;  // of a row; rows at a time
    int first = threadIdx.x / kQuads, c = threadIdx.x % kQuads * 4;
    float shift[4] = {};
    if (h.shift) {
      Quad32 q = load<Quad32>(h.shift + head * D + c);
      shift[0] = asFloat(q.x), shift[1] = asFloat(q.y), shift[2] = asFloat(q.z), shift[3] = asFloat(q.w);
    }
#pragma unroll 8
    for (int i = 0; i < kPage; i += kStep) {
      int t = first + i;
      Quad32 q = {};
      if (t >= lo && t < hi) q = load<Quad32>(x + (u64)(t - lo) * p.heads * D + c);
      if (h.shift) q = {asBits(addRound(asFloat(q.x), shift[0])), asBits(addRound(asFloat(q.y), shift[1])), asBits(addRound(asFloat(q.z), shift[2])), asBits(addRound(asFloat(q.w), shift[3]))};
      *(Quad32*)(to + t * kRow + c) = q;
    }
  }

  // multiply adds the products with some inputs: x begins at a thread's first token,
  // whose others are four apart, m at its first four channels, whose others are 32 apart.
  DEV void multiply(float (&y)[8][kWide], const float* x, const float* m) {
#pragma unroll 2
    for (int i = 0; i < kInputs; i += 4) {
      float in[8][4];
#pragma unroll
      for (int t = 0; t < 8; t++) {
        Quad32 q = load<Quad32>(x + 4 * t * kRow + i);
        in[t][0] = asFloat(q.x), in[t][1] = asFloat(q.y), in[t][2] = asFloat(q.z), in[t][3] = asFloat(q.w);
      }
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float of[kWide];
#pragma unroll
        for (int c = 0; c < kWide; c += 4) {
          Quad32 q = load<Quad32>(m + (i + k) * D + 8 * c);
          of[c] = asFloat(q.x), of[c + 1] = asFloat(q.y), of[c + 2] = asFloat(q.z), of[c + 3] = asFloat(q.w);
        }
#pragma unroll
        for (int t = 0; t < 8; t++)
#pragma unroll
          for (int c = 0; c < kWide; c++) y[t][c] = fusedMulAdd(in[t][k], of[c], y[t][c]);
      }
    }
  }

  DEV void run(const EncodeParams& p) {
    SHARED(memory);
    Shared* s = (Shared*)memory;
    const EncodeHalf& h = p.half[0];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, page = p.position / kPage + blockIdx.x, first = page * kPage;
    int lo = max(p.position, first) - first, hi = min(p.position + p.rows, first + kPage) - first;
    const float* matrix = h.map + head * (D * D);
    for (int i = 0; i < kStages - 1; i++) fetch(s->ring[i], matrix + i * (kInputs * D)), copyCommit();
    waitBefore();
    letNextStart();  // not before: what codes values reads what kernels before this one wrote, without waiting for this one
    rows(p, h, head, h.x + ((u64)(first + lo - p.position) * p.heads + head) * D, lo, hi, s->x);
    constexpr int kAcross = D / (8 * kWide);  // warps, of 32 tokens each
    int token = warp / kAcross * 32 + lane / 8, channel = warp % kAcross * (8 * kWide) + lane % 8 * 4;
    float y[8][kWide];
#pragma unroll
    for (int t = 0; t < 8; t++)
#pragma unroll
      for (int c = 0; c < kWide; c++) y[t][c] = 0;
#pragma unroll 1
    for (int i = 0; i < D / kInputs; i++) {
      copyWait<kStages - 2>();
      blockSync();
      if (i + kStages - 1 < D / kInputs) fetch(s->ring[(i + kStages - 1) % kStages], matrix + (i + kStages - 1) * (kInputs * D));
      copyCommit();
      multiply(y, s->x + token * kRow + i * kInputs, s->ring[i % kStages] + channel);
    }
    u16* exact = Encode<D>::exactHalf(p, page, head, 0);
#pragma unroll
    for (int t = 0; t < 8; t++) {
      int at = token + 4 * t;
      if (at < lo || at >= hi) continue;
      u32 two[kWide / 2];
#pragma unroll
      for (int c = 0; c < kWide; c += 2) two[c / 2] = narrow2(y[t][c], y[t][c + 1]);
      saturateAll(two);
#pragma unroll
      for (int c = 0; c < kWide; c += 4) *(Pair32*)(exact + at * D + channel + 8 * c) = {two[c / 2], two[c / 2 + 1]};
    }
  }
};

KERNEL(map_keys_64, EncodeParams, MapKeys<64>::kThreads, 4) { MapKeys<64>::run(p); }
KERNEL(map_keys_128, EncodeParams, MapKeys<128>::kThreads, 4) { MapKeys<128>::run(p); }

struct MapParams {
  float* q;          // [row][heads][dim], in place
  const float* map;  // [kv head][dim in][dim out]
  int rows, heads, group, pad;
};

// Queries: sixteen vectors a warp. A number is a sum of two bfloat16, but for 2⁻¹⁸ of
// it, and all products but the one of the lesser parts are summed. A vector's bits are
// the same whatever others there are. Block (some vectors of a KV head, KV head).
template <int D>
struct MapQueries {
  static constexpr int kThreads = 256, kVectors = kThreads / 32 * 16;
  static constexpr int kSteps = D / 16, kTiles = D / 8, kTogether = 4;  // kTogether: tiles of outputs that are summed side by side

  // Shared has the matrix as lanes read it: of an input step and a tile of outputs,
  // lane 4g + i has inputs 4i … 4i + 3 of an output, first parts in x and y.
  struct Shared {
    Quad32 matrix[kSteps][kTiles][32];
  };

  // parts are those of two numbers.
  DEV void parts(u32& first, u32& second, float a, float b) {
    first = narrowBrain2(a, b);
    second = narrowBrain2(subRound(a, asFloat(first << 16)), subRound(b, asFloat(first & 0xffff0000)));
  }

  // split fills the matrix. Outputs are ordered so that a lane's sums of two tiles are
  // four that follow each other.
  DEV void split(Shared* s, const float* m) {
    int lane = threadIdx.x % 32, g = lane / 4, in = lane % 4 * 4;
#pragma unroll 4
    for (int i = 0; i < kSteps * kTiles; i += kThreads / 32) {
      int step = (i + threadIdx.x / 32) / kTiles, tile = (i + threadIdx.x / 32) % kTiles;
      const float* from = m + (16 * step + in) * D + tile / 2 * 16 + g / 2 * 4 + tile % 2 * 2 + g % 2;
      Quad32 q;
      parts(q.x, q.z, from[0], from[D]);
      parts(q.y, q.w, from[2 * D], from[3 * D]);
      s->matrix[step][tile][lane] = q;
    }
  }

  DEV float* vectorAt(const MapParams& p, int i) { return p.q + ((u64)(i / p.group) * p.heads + blockIdx.y * p.group + i % p.group) * D; }

  // multiply takes a warp's vectors, from the first on.
  DEV void multiply(const MapParams& p, const Shared* s, int first) {
    int lane = threadIdx.x % 32, all = p.rows * p.group;
    first += lane / 4;
    float* x[2] = {vectorAt(p, min(first, all - 1)) + lane % 4 * 4, vectorAt(p, min(first + 8, all - 1)) + lane % 4 * 4};
    Quad32 in[kSteps][2];
#pragma unroll
    for (int step = 0; step < kSteps; step++)
#pragma unroll
      for (int r = 0; r < 2; r++) in[step][r] = load<Quad32>(x[r] + 16 * step);
    u32 a[kSteps][4], b[kSteps][4];  // first and second parts
#pragma unroll
    for (int step = 0; step < kSteps; step++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        parts(a[step][r], b[step][r], asFloat(in[step][r].x), asFloat(in[step][r].y));
        parts(a[step][r + 2], b[step][r + 2], asFloat(in[step][r].z), asFloat(in[step][r].w));
      }
    warpSync();  // all have read
#pragma unroll 1
    for (int tile = 0; tile < kTiles; tile += kTogether) {
      float y[kTogether][4] = {};
#pragma unroll
      for (int step = 0; step < kSteps; step++)
#pragma unroll
        for (int t = 0; t < kTogether; t++) {
          Quad32 m = s->matrix[step][tile + t][lane];
          mmaBrain(y[t], b[step][0], b[step][1], b[step][2], b[step][3], m.x, m.y);
          mmaBrain(y[t], a[step][0], a[step][1], a[step][2], a[step][3], m.z, m.w);
          mmaBrain(y[t], a[step][0], a[step][1], a[step][2], a[step][3], m.x, m.y);
        }
#pragma unroll
      for (int r = 0; r < 2; r++)
#pragma unroll
        for (int t = 0; t < kTogether; t += 2)
          if (first + 8 * r < all) *(Quad32*)(x[r] + 8 * (tile + t)) = {asBits(y[t][2 * r]), asBits(y[t][2 * r + 1]), asBits(y[t + 1][2 * r]), asBits(y[t + 1][2 * r + 1])};
    }
  }

  DEV void run(const MapParams& p) {
    SHARED(memory);
    Shared* s = (Shared*)memory;
    letNextStart();
    split(s, p.map + blockIdx.y * (D * D));
    waitBefore();
    blockSync();
    for (int i = blockIdx.x * kVectors; i < p.rows * p.group; i += gridDim.x * kVectors) multiply(p, s, i + threadIdx.x / 32 * 16);
  }
};

KERNEL(map_queries_64, MapParams, MapQueries<64>::kThreads, 2) { MapQueries<64>::run(p); }
KERNEL(map_queries_128, MapParams, MapQueries<128>::kThreads, 2) { MapQueries<128>::run(p); }
