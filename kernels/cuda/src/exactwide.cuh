// Prompt attention over exact pages alone, with Hopper's warpgroup products (sm_90a).
//
// A warpgroup of the block copies pages, two of them a tile of 128 tokens, into a
// ring: a slot has K or V of a tile, rows of 64 channels of a token, the way the tensor
// cores read them. The others attend for 64 query vectors each, last tiles first, so
// that only those may hold tokens that a row does not see. While a warpgroup makes
// weights of a tile's scores the tensor cores have its weights of the tile before and
// the others' products: they take turns.
//
// A warp has 16 vectors: a lane r and r + 8 of them (r = lane / 4), and of every eight
// columns, tokens or channels, 2q and 2q + 1 (q = lane % 4).
#pragma once
#include "prefill.cuh"

template <int D>
struct ExactWide {
  static constexpr int kGroups = D == 64 ? 3 : 2, kThreads = 128 * (kGroups + 1), kVectors = 64 * kGroups;
  static constexpr int kTile = 2 * kTokens, kHalves = D / 64, kSlots = 6, kAhead = 2;  // slots that are filled at once
  static constexpr float kUnseen = -1e30f;  // a score; weighs 0 beside any that is seen, and 1 before the first
  struct Shared {
    u8 slot[kSlots][kHalves][kTile * 128];
    u8 queries[kGroups][kHalves][64 * 128];
    u64 full[kSlots], empty[kSlots];
  };

  // Turn is where a ring is: the slot, and the parity of its phase.
  struct Turn {
    int slot = 0;
    u32 parity = 0;
    DEV Turn take(Turn& t) {
      Turn was = t;
      if (++t.slot == kSlots) t.slot = 0, t.parity ^= 1;
      return was;
    }
  };

  // --- the warpgroup that copies

  struct Tile {
    u64 page[2];
    int most;  // of its tokens only those up to this one are there
  };
  DEV Tile tileOf(const PrefillParams& p, int tile, int last) {
    tile = max(tile, 0);
    return Tile{{p.exact[2 * tile], p.exact[min(2 * tile + 1, last / kTokens)]}, last - tile * kTile};
  }

  // copy starts the copies of a tile's K or V; beyond the last token zeros.
  DEV void copy(u8 (&slot)[kHalves][kTile * 128], const PrefillParams& p, const Tile& tile, int half, int thread) {
    constexpr int kPieces = D / 8, kRows = 128 / kPieces;  // of a token; tokens of a pass
    int row = thread / kPieces, piece = thread % kPieces;
    u8* to = slot[piece / 8 % kHalves] + row * 128 + ((piece ^ row) & 7) * 16;
    u64 offset = p.exactLayer + (2 * blockIdx.y + half) * (kTokens * D * 2) + 16 * thread;
#pragma unroll
    for (int n = 0; n < 2; n++) {
      const u8* from = (const u8*)(tile.page[n] + offset);
#pragma unroll
      for (int t = 0; t < kTokens; t += kRows) copy16Or0(to + (n * kTokens + t) * 128, from + t * D * 2, row + n * kTokens + t <= tile.most);
    }
  }

  DEV void produce(Shared& m, const PrefillParams& p, int tiles, int last, int thread) {
    Turn turn, done;
    int filled = 0;
    // The copies of some slots are on their way; the oldest one's are waited for.
    auto publish = [&]() {
      operandFence();
      warpSync();
      if (thread % 32 == 0) barrierArrive(&m.full[done.slot]);
      Turn::take(done);
    };
    auto fill = [&](const Tile& tile, int half) {
      Turn t = Turn::take(turn);
      barrierWait(&m.empty[t.slot], t.parity ^ 1);
      copy(m.slot[t.slot], p, tile, half, thread);
      copyCommit();
      if (filled++ < kAhead) return;
      copyWait<kAhead>();
      publish();
    };
    Tile tile = tileOf(p, tiles - 1, last), next = tileOf(p, tiles - 2, last);
    fill(tile, 0);
#pragma unroll 1
    for (int k = tiles - 2; k >= 0; k--) {
      Tile before = tile;
      tile = next;
      next = tileOf(p, k - 1, last);
      fill(tile, 0);
      fill(before, 1);
    }
    fill(tile, 1);
    copyWait<0>();
    while (done.slot != turn.slot) publish();
  }

  // --- the warpgroups that attend

  struct Rows {
    int position[2];  // -1: beyond the last
    float m[2], sum[2];
    float value[D / 8][4];
  };

  // loadQueries writes a warp's queries as float16, an operand's rows.
  DEV void loadQueries(u8 (&to)[kHalves][64 * 128], const PrefillParams& p, const Rows& s, int first, int row, int lane) {
#pragma unroll 4
    for (int i = lane; i < 16 * D / 8; i += 32) {
      int v = i / (D / 8), piece = i % (D / 8);
      const float* x = Prefill<D, kTwoBits, kTwoBits, false>::vector(p, first + v) + 8 * piece;
      bool real = first + v < p.rows * p.group;
      u32 w[4];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        Quad32 y = real ? load<Quad32>(x + 4 * k) : Quad32{0, 0, 0, 0};
        w[2 * k] = narrow2(asFloat(y.x) * p.scale, asFloat(y.y) * p.scale);
        w[2 * k + 1] = narrow2(asFloat(y.z) * p.scale, asFloat(y.w) * p.scale);
      }
      *(Quad32*)(to[piece / 8 % kHalves] + (row + v) * 128 + ((piece ^ v) & 7) * 16) = Quad32{w[0], w[1], w[2], w[3]};
    }
  }

  DEV void multiplyKeys(float (&x)[16][4], const u8 (&queries)[kHalves][64 * 128], const u8 (&keys)[kHalves][kTile * 128]) {
    groupHalf<false>(x, groupOperand(queries[0]), groupOperand(keys[0]));
#pragma unroll
    for (int k = 1; k < D / 16; k++) groupHalf<true>(x, groupOperand(queries[k / 4] + k % 4 * 32), groupOperand(keys[k / 4] + k % 4 * 32));
    groupCommit();
  }
  DEV void multiplyValues(Rows& s, const u32 (&word)[8][4], const u8 (&values)[kHalves][kTile * 128]) {
#pragma unroll
    for (int k = 0; k < 8; k++) groupWeigh<true>(s.value, word[k], groupColumns(values[0] + k * 16 * 128, kTile * 128));
    groupCommit();
  }

  // weights makes scores weights, and gives what shrinks all earlier ones.
  template <bool SOME>
  DEV void weights(Rows& s, float (&x)[16][4], float (&shrink)[2], int token, int q) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int most = s.position[h] - token - 2 * q;
      float top = s.m[h];
#pragma unroll
      for (int i = 0; i < 16; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          if (SOME && 8 * i + e > most) x[i][2 * h + e] = kUnseen;
          top = larger(top, x[i][2 * h + e]);
        }
      top = larger(top, laneXor(top, 1));
      top = larger(top, laneXor(top, 2));
      shrink[h] = exp2Fast(s.m[h] - top);
      s.m[h] = top;
      float sum[2] = {s.sum[h] * shrink[h], 0};
#pragma unroll
      for (int i = 0; i < 16; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          x[i][2 * h + e] = exp2Fast(x[i][2 * h + e] - top);
          sum[e] += x[i][2 * h + e];
        }
      s.sum[h] = sum[0] + sum[1];
    }
  }

  // operand is weights as the tensor cores take them from registers.
  DEV void operand(u32 (&word)[8][4], const float (&x)[16][4]) {
#pragma unroll
    for (int k = 0; k < 8; k++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        word[k][h] = narrow2(x[2 * k][2 * h], x[2 * k][2 * h + 1]);
        word[k][2 + h] = narrow2(x[2 * k + 1][2 * h], x[2 * k + 1][2 * h + 1]);
      }
  }

  // giveBack says that a warp is done with a slot.
  DEV void giveBack(Shared& m, const Turn& t, int lane) {
    warpSync();
    if (lane == 0) barrierArrive(&m.empty[t.slot]);
  }

  // tiles attends over tiles from on, down to the one before to. What is in flight
  // at once, the scores of a tile and the values of the one before, begins and ends
  // without a branch between.
  template <bool SOME>
  DEV void over(Shared& m, Rows& s, u32 (&word)[8][4], Turn& turn, int from, int to, int group, int lane) {
#pragma unroll 1
    for (int tile = from; tile > to; tile--) {
      Turn k = Turn::take(turn), v = Turn::take(turn);
      barrierWait(&m.full[k.slot], k.parity);
      barrierWait(&m.full[v.slot], v.parity);
      float x[16][4], shrink[2];
      someSync(1 + group, 256);
      groupFence(s.value);
      multiplyKeys(x, m.queries[group], m.slot[k.slot]);
      multiplyValues(s, word, m.slot[v.slot]);
      someArrive(1 + (group + 1) % kGroups, 256);
      groupWaitFor<1>(x);
      giveBack(m, k, lane);
      weights<SOME>(s, x, shrink, tile * kTile, lane & 3);
      holdSums(x);  // now, beside the products, and not when they have ended
      groupWait(s.value);
      giveBack(m, v, lane);
#pragma unroll
      for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) s.value[i][e] *= shrink[e >> 1];
      operand(word, x);
    }
  }

  DEV void attend(Shared& m, const PrefillParams& p, int tiles, int blockFirst, int blockLast, int thread) {
    int group = thread / 128, lane = thread & 31, r = lane >> 2, q = lane & 3, row = thread / 32 % 4 * 16, first = blockFirst + 64 * group + row;
    Rows s;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int v = first + r + 8 * h;
      s.position[h] = v <= blockLast ? p.position + v / p.group : -1;
      s.m[h] = kUnseen, s.sum[h] = 0;
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) s.value[i][e] = 0;
    loadQueries(m.queries[group], p, s, first, row, lane);
    operandFence();
    someSync(1 + kGroups + group, 128);
    if (group == kGroups - 1) someArrive(1, 256);  // the first turn is group 0's

    Turn turn, k = Turn::take(turn);
    float x[16][4], shrink[2];
    barrierWait(&m.full[k.slot], k.parity);
    groupFence();
    multiplyKeys(x, m.queries[group], m.slot[k.slot]);
    groupWait(x);
    giveBack(m, k, lane);
    weights<true>(s, x, shrink, (tiles - 1) * kTile, q);
    u32 word[8][4];
    operand(word, x);
    // Tiles before this one are seen whole by all of the warpgroup's vectors.
    int whole = min((p.position + (blockFirst + 64 * group) / p.group + 1) / kTile, tiles - 1);
    over<true>(m, s, word, turn, tiles - 2, whole - 1, group, lane);
    over<false>(m, s, word, turn, min(whole, tiles - 1) - 1, -1, group, lane);
    k = Turn::take(turn);
    barrierWait(&m.full[k.slot], k.parity);
    groupFence(s.value);
    multiplyValues(s, word, m.slot[k.slot]);
    groupWait(s.value);
    store(s, p, first, r, q);
  }

  DEV void store(Rows& s, const PrefillParams& p, int first, int r, int q) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      s.sum[h] += laneXor(s.sum[h], 1);
      s.sum[h] += laneXor(s.sum[h], 2);
      if (s.position[h] < 0) continue;
      u64 at = Prefill<D, kTwoBits, kTwoBits, false>::vector(p, first + r + 8 * h) - p.q;
      if (p.states && q == 0) *(State*)(p.states + 2 * (at / D)) = State{s.m[h], s.sum[h]};
      float inv = 1 / s.sum[h];
      float* out = p.out + at + 2 * q;
#pragma unroll
      for (int i = 0; i < D / 8; i++) *(Pair32*)(out + 8 * i) = Pair32{asBits(s.value[i][2 * h] * inv), asBits(s.value[i][2 * h + 1] * inv)};
    }
  }

  DEV void run(const PrefillParams& p) {
    SHARED(memory);
    Shared& m = *(Shared*)memory;
    int thread = threadIdx.x, blockFirst = (int)(gridDim.x - 1 - blockIdx.x) * kVectors;  // the longest rows begin first
    int blockLast = min(blockFirst + kVectors, p.rows * p.group) - 1, last = p.position + blockLast / p.group, tiles = last / kTile + 1;
    if (thread < kSlots) {
      barrierInit(&m.full[thread], 4);
      barrierInit(&m.empty[thread], 4 * kGroups);
      barrierFence();
    }
    blockSync();
    if (thread >= 128 * kGroups) {
      fewerRegisters<kGroups == 3 ? 32 : 40>();
      produce(m, p, tiles, last, thread - 128 * kGroups);
    } else {
      moreRegisters<kGroups == 3 ? 160 : 232>();
      attend(m, p, tiles, blockFirst, blockLast, thread);
    }
  }
};
