// Vectors into the cache's basis: the Hadamard matrix, or a matrix of their own. Every
// float32 step is rounded once, and sums run in channel order, as package quant's.
#pragma once
#include "prim.cuh"

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

// Prompts go into the basis four tokens a warp, eight lanes each: a lane has channels
// 4·(lane % 8) + 32j and the three that follow.
template <int N>
DEV void turnFour(float (&v)[N][4], int lane, float norm) {
#pragma unroll
  for (int j = 0; j < N; j++)
#pragma unroll
    for (int step = 1; step < 4; step *= 2)
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (!(k & step)) {
          float a = v[j][k], b = v[j][k + step];
          v[j][k] = addRound(a, b), v[j][k + step] = subRound(a, b);
        }
#pragma unroll
  for (int step = 1; step < 8; step *= 2) {
    float sign = lane & step ? -1.0f : 1.0f;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
      for (int k = 0; k < 4; k++) v[j][k] = fusedMulAdd(v[j][k], sign, laneXor(v[j][k], step));
  }
#pragma unroll
  for (int step = 1; step < N; step *= 2)
#pragma unroll
    for (int j = 0; j < N; j++)
      if (!(j & step))
#pragma unroll
        for (int k = 0; k < 4; k++) {
          float a = v[j][k], b = v[j + step][k];
          v[j][k] = addRound(a, b), v[j + step][k] = subRound(a, b);
        }
#pragma unroll
  for (int j = 0; j < N; j++)
#pragma unroll
    for (int k = 0; k < 4; k++) v[j][k] = mulRound(v[j][k], norm);
}

template <int N>
DEV void loadFour(Quad32 (&x)[N], const float* from) {
#pragma unroll
  for (int j = 0; j < N; j++) x[j] = load<Quad32>(from + 32 * j);
}

// eachOf takes values through a function of them and of another vector's.
template <int N, class F>
DEV void eachOf(float (&v)[N][4], const float* with, F f) {
  Quad32 q[N];
  loadFour(q, with);
#pragma unroll
  for (int j = 0; j < N; j++) {
    const u32 in[4] = {q[j].x, q[j].y, q[j].z, q[j].w};
#pragma unroll
    for (int k = 0; k < 4; k++) v[j][k] = f(v[j][k], asFloat(in[k]));
  }
}

// A matrix is read once for sixteen vectors of a warp, which lie in shared memory in
// rows of kMapRow.
template <int N>
static constexpr int kMapRow = 32 * N + 4;
static constexpr int kMapRows = 16;

// mapSixteen multiplies them with a matrix [in][out], in order, as mapHead does: a
// lane has vectors lane / 8 + 4t, with channels as above.
template <int N>
DEV void mapSixteen(float (&y)[4][N][4], const float* x, const float* m, int lane) {
#pragma unroll
  for (int t = 0; t < 4; t++)
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
      for (int c = 0; c < 4; c++) y[t][j][c] = 0;
  x += lane / 8 * kMapRow<N>, m += lane % 8 * 4;
#pragma unroll 1
  for (int i = 0; i < 32 * N; i += 4) {
    float in[4][4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
      Quad32 q = load<Quad32>(x + 4 * t * kMapRow<N> + i);
      in[t][0] = asFloat(q.x), in[t][1] = asFloat(q.y), in[t][2] = asFloat(q.z), in[t][3] = asFloat(q.w);
    }
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int j = 0; j < N; j++) {
        Quad32 q = load<Quad32>(m + (i + k) * (32 * N) + 32 * j);
        const u32 of[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int t = 0; t < 4; t++)
#pragma unroll
          for (int c = 0; c < 4; c++) y[t][j][c] = addRound(y[t][j][c], mulRound(in[t][k], asFloat(of[c])));
      }
    }
  }
}
