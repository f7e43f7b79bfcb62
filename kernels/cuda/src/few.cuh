// Products of few rows: what decoding does all day. The weights are read once, at
// the memory's speed, and are the wide operand of the tensor cores; the rows of x
// are its eight columns, however few they are. A row's sums run in one order,
// whatever other rows there are.
//
// A block a multiprocessor goes through tiles of 16 rows of the weights; each of its
// warps has a ring of what it reads next, across the ends of tiles, so that the
// memory is never idle. The ring is filled before the kernel waits for the one
// before it: weights are nobody's result. A block takes more than half of a
// multiprocessor's shared memory, so that the next kernel's come when it ends, one
// each. What is multiplied lies in shared memory, and is made by every block for
// itself where that is cheaper than a launch: the residual stream's norm, or
// attention's outputs out of V's basis.
#pragma once
#include "step.cuh"

static constexpr int kFewWarps = 8, kFewThreads = 32 * kFewWarps;
static constexpr int kFewColumns = 64;             // of a step: 128 bytes of each row
static constexpr int kFewStep = 16 * kFewColumns * 2;  // bytes
static constexpr int kFewPad = 32;  // between rows of x in shared memory: they lie in different banks

struct FewParams {
  const u16* w;  // [out][in]; of a gated product: gates [out][in] and then ups
  const u16* x;  // [row][in]; null where the kernel makes it
  float* y;      // [row][out]
  u16* gated;    // [row][out]: silu(gate)·up, in place of y; null: not gated
  // What x is made of: the residual stream and a norm's weights [in], or attention's
  // outputs, the signs of V's rotation and the means (LeaveParams).
  const float *from, *weight, *mean;
  const int* which;  // the rows of the residual stream; null: all in order
  int in, out, rows, brain;  // in: a multiple of 32; rows: at most 8
  int add;                   // 1: y += what is multiplied
  int heads, group;
  float factor;  // of the Hadamard matrix, or a norm's eps
};

enum FewInput { kGiven, kNormed, kLeft64, kLeft128 };

// STAGES: of a ring; there are kernels with many, and with few for where rows take the
// room or there is less of it.
template <FewInput INPUT, bool BRAIN, int STAGES>
struct Few {
  struct Shared {
    u8 ring[kFewWarps][STAGES][kFewStep];
    float sums[2][kFewWarps][16][8];  // of a tile, of the one before
  };

  // Weights is a warp's way through the weights: of every tile of its block the
  // steps warp, warp + 8, …
  struct Weights {
    u8* ring;
    int tile, step, stage;
    int tiles, steps, warp;
    u64 once;    // the copies' policy: what other kernels need stays in the cache
    u64 row[4];  // where a lane's rows of the tile begin
  };

  DEV bool gated(const FewParams& p) { return p.gated != nullptr; }
  DEV int first(const FewParams& p, int tile) { return tile * (gated(p) ? 8 : 16); }

  DEV void enter(const FewParams& p, Weights& s, int lane) {
    int last = p.out - 1, at = first(p, s.tile);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int row = lane / 8 + 4 * i;
      s.row[i] = (u64)(gated(p) && row >= 8 ? p.out + min(at + row - 8, last) : min(at + row, last)) * p.in;
    }
  }

  // start begins the next step's copy, or an empty group behind the last one.
  DEV void start(const FewParams& p, Weights& s, int lane) {
    if (s.tile < s.tiles) {
      int piece = lane % 8, column = s.step * kFewColumns + piece * 8;
      // rows of 128 bytes would meet in the same banks: the halves of every other
      // row change places
      u8* to = s.ring + s.stage * kFewStep + lane / 8 * 128 + (piece ^ (lane / 8 & 1) * 4) * 16;
      if (column < p.in)
#pragma unroll
        for (int i = 0; i < 4; i++) copy16Once(to + i * 512, p.w + s.row[i] + column, s.once);
      s.stage = s.stage + 1 == STAGES ? 0 : s.stage + 1;
      if ((s.step += kFewWarps) >= s.steps) {
        s.step = s.warp;
        if ((s.tile += gridDim.x) < s.tiles) enter(p, s, lane);
      }
    }
    copyCommit();
  }

  // fetchLines asks for n numbers.
  DEV void fetchLines(const float* from, int n) {
    for (int i = 32 * threadIdx.x; i < n; i += 32 * kFewThreads) fetchLine(from + i);
  }

  // copied brings x as it is.
  DEV void copied(const FewParams& p, u16* x) {
    int each = p.in / 8;
#pragma unroll 8
    for (int i = threadIdx.x; i < p.rows * each; i += kFewThreads) *(Quad32*)(x + i / each * (p.in + kFewPad) + i % each * 8) = load<Quad32>(p.x + 8 * (u64)i);
  }

  // normed makes x of the residual stream, N rows at a time: a warp has its eighth of
  // each of them.
  template <int N>
  DEV void normed(const FewParams& p, u16* x, float* squares, int warp, int lane) {
    int n = p.in / kFewWarps;
    const float* from[N];
    auto rowsFrom = [&](int at) {
#pragma unroll
      for (int k = 0; k < N; k++) {
        int row = min(at + k, p.rows - 1);
        from[k] = p.from + (u64)(p.which ? p.which[row] : row) * p.in + warp * n;
      }
    };
    for (int at = 0; at < p.rows; at += N) {
      float sum[N] = {};
      rowsFrom(at);
#pragma unroll 4
      for (int i = 4 * lane; i < n; i += 128)
#pragma unroll
        for (int k = 0; k < N; k++) {
          Quad32 v = load<Quad32>(from[k] + i);
          float a = asFloat(v.x), b = asFloat(v.y), c = asFloat(v.z), d = asFloat(v.w);
          sum[k] += a * a + b * b + c * c + d * d;
        }
#pragma unroll
      for (int k = 0; k < N; k++) {
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) sum[k] += laneXor(sum[k], mask);
        if (lane == 0 && at + k < p.rows) squares[(at + k) * kFewWarps + warp] = sum[k];
      }
    }
    blockSync();
    for (int at = 0; at < p.rows; at += N) {
      float scale[N];
      rowsFrom(at);
#pragma unroll
      for (int k = 0; k < N; k++) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kFewWarps; w++) sum += squares[min(at + k, p.rows - 1) * kFewWarps + w];
        scale[k] = 1 / sqrtRound(sum / (float)p.in + p.factor);
      }
#pragma unroll 4
      for (int i = 4 * lane; i < n; i += 128) {
        Quad32 w = load<Quad32>(p.weight + warp * n + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
          Quad32 v = load<Quad32>(from[k] + i);
          u32 a = narrowTo(asFloat(v.x) * scale[k] * asFloat(w.x), BRAIN), b = narrowTo(asFloat(v.y) * scale[k] * asFloat(w.y), BRAIN);
          u32 c = narrowTo(asFloat(v.z) * scale[k] * asFloat(w.z), BRAIN), d = narrowTo(asFloat(v.w) * scale[k] * asFloat(w.w), BRAIN);
          if (at + k < p.rows) *(Pair32*)(x + (at + k) * (p.in + kFewPad) + warp * n + i) = Pair32{a | b << 16, c | d << 16};
        }
      }
    }
  }

  // left makes x of attention's outputs, a head a warp.
  template <int D>
  DEV void left(const FewParams& p, u16* x, int warp, int lane) {
    for (int i = warp; i < p.rows * p.heads; i += kFewWarps) {
      int row = i / p.heads, head = i % p.heads;
      leaveHead<D>(x + row * (p.in + kFewPad) + head * D, p.from + (u64)i * D, p.weight, p.mean ? p.mean + head / p.group * D : nullptr, p.factor, BRAIN, lane);
    }
  }

  // multiply takes a step's products; which of its 64 columns a lane's registers
  // hold is the same for both operands, so that each is read 16 bytes at a time.
  DEV void multiply(float (&c)[2][4], const FewParams& p, const u8* stage, const u16* x, int column, int r, int q) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int piece = 4 * j + q;
      if (column + 8 * piece - 8 * q >= p.in) break;  // the same for all lanes
      Quad32 a = load<Quad32>(stage + r * 128 + (piece ^ (r & 1) * 4) * 16), b = load<Quad32>(stage + (r + 8) * 128 + (piece ^ (r & 1) * 4) * 16);
      Quad32 v = load<Quad32>(x + column + 8 * piece);
      if (BRAIN) {
        mmaBrain(c[j], a.x, b.x, a.y, b.y, v.x, v.y);
        mmaBrain(c[j], a.z, b.z, a.w, b.w, v.z, v.w);
      } else {
        mmaHalf(c[j], a.x, b.x, a.y, b.y, v.x, v.y);
        mmaHalf(c[j], a.z, b.z, a.w, b.w, v.z, v.w);
      }
    }
  }

  // finish adds the warps' sums of a tile and writes what they give.
  DEV void finish(const FewParams& p, float (&sums)[kFewWarps][16][8], int tile, int i) {
    bool mine = i >= 0 && i < 128;
    int row = i % 8, o = i / 8, at = first(p, tile) + o;  // threads side by side: rows of x
    mine = mine && row < p.rows && at < p.out && (o < 8 || !gated(p));
    float sum = mine && p.add ? p.y[(u64)row * p.out + at] : 0, up = 0;
    blockSync();
    if (!mine) return;
    float all = 0;
#pragma unroll
    for (int w = 0; w < kFewWarps; w++) all += sums[w][o][row];
    if (!gated(p)) {
      p.y[(u64)row * p.out + at] = p.add ? sum + all : all;
      return;
    }
#pragma unroll
    for (int w = 0; w < kFewWarps; w++) up += sums[w][o + 8][row];
    p.gated[(u64)row * p.out + at] = narrowTo(all / (1 + exp2Fast(-1.44269504f * all)) * up, BRAIN);
  }

  DEV void run(const FewParams& p) {
    SHARED(memory);
    Shared* m = (Shared*)memory;
    u16* rows = (u16*)(m + 1);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane >> 2, q = lane & 3;
    Weights s;
    s.ring = m->ring[warp][0], s.once = onlyOnce(), s.warp = s.step = warp, s.stage = 0;
    s.tile = blockIdx.x, s.tiles = gated(p) ? (p.out + 7) / 8 : (p.out + 15) / 16, s.steps = (p.in + kFewColumns - 1) / kFewColumns;
    if (warp >= s.steps) s.tile = s.tiles;  // nothing for this warp
    letNextStart();
    // what x is made with, and no kernel gives: behind the ring's copies it would come last
    if (INPUT == kNormed) fetchLines(p.weight, p.in);
    if ((INPUT == kLeft64 || INPUT == kLeft128) && p.mean) fetchLines(p.mean, p.in / p.group);
    enter(p, s, lane);
#pragma unroll 1
    for (int i = 0; i < STAGES - 1; i++) start(p, s, lane);
    waitBefore();
    if (INPUT == kGiven) copied(p, rows);
    if (INPUT == kNormed && p.rows == 1) normed<1>(p, rows, &m->sums[0][0][0][0], warp, lane);
    if (INPUT == kNormed && p.rows > 1) normed<4>(p, rows, &m->sums[0][0][0][0], warp, lane);
    if (INPUT == kLeft64) left<64>(p, rows, warp, lane);
    if (INPUT == kLeft128) left<128>(p, rows, warp, lane);
    blockSync();
    const u16* x = rows + min(r, p.rows - 1) * (p.in + kFewPad);
    int stage = 0, turn = 0;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < s.tiles; tile += gridDim.x, turn ^= 1) {
      float c[2][4] = {};
#pragma unroll 1
      for (int step = warp; step < s.steps; step += kFewWarps) {
        warpSync();  // all lanes are done with the stage that comes next
        start(p, s, lane);
        copyWait<STAGES - 1>();
        warpSync();
        multiply(c, p, s.ring + stage * kFewStep, x, step * kFewColumns, r, q);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
      }
#pragma unroll
      for (int e = 0; e < 4; e++) m->sums[turn][warp][r + 8 * (e >> 1)][2 * q + (e & 1)] = c[0][e] + c[1][e];
      finish(p, m->sums[turn], tile, (int)threadIdx.x - 128 * turn);
    }
    copyWait<0>();
  }
};

#define FEW(name, INPUT, STAGES)              \
  KERNEL(name##_##STAGES, FewParams, kFewThreads, 1) { \
    if (p.brain) {                            \
      Few<INPUT, true, STAGES>::run(p);       \
    } else {                                  \
      Few<INPUT, false, STAGES>::run(p);      \
    }                                         \
  }
#define FEW_BOTH(name, INPUT) FEW(name, INPUT, 10) FEW(name, INPUT, 5)

FEW_BOTH(few_rows, kGiven)
FEW_BOTH(few_norm, kNormed)
FEW_BOTH(few_leave_64, kLeft64)
FEW_BOTH(few_leave_128, kLeft128)
