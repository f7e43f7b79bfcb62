// Vectors into the cache's basis: the Hadamard matrix, or a matrix of their own. Every
// float32 step is rounded once, and sums run in channel order, as package quant's; sums
// of products with a matrix are fused, as processors' are (kernels/cpu).
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

// mapHead multiplies a vector with a matrix [in][out], in order and fused, as
// processors do; a lane has channels lane + 32j.
template <int N>
DEV void mapHead(float (&v)[N], const float* m, int lane) {
  float y[N] = {};
#pragma unroll
  for (int j = 0; j < N; j++)
#pragma unroll 16
    for (int i = 0; i < 32; i++) {
      float x = laneShuffle(v[j], i);
      const float* row = m + (32 * j + i) * (32 * N) + lane;
#pragma unroll
      for (int k = 0; k < N; k++) y[k] = fusedMulAdd(x, row[32 * k], y[k]);
    }
#pragma unroll
  for (int k = 0; k < N; k++) v[k] = y[k];
}

// fetchMap asks for the matrix of a head, the first of those that share it, before the
// kernels before are done: few rows otherwise wait for line after line of it.
template <int D>
DEV void fetchMap(const float* map, int head, int group) {
  if (threadIdx.x % 32 == 0 && head % group == 0) fetchBytes(map + head / group * (D * D), D * D * 4);
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
