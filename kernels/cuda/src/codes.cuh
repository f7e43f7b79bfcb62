// Codes: the levels of values, and the words of pages that they are packed in. The bits
// are those of package quant.
#pragma once
#include "prim.cuh"

DEV float tame(float x) {  // as quant.saturate
  if (x != x) return 0;
  return x > 65504 ? 65504 : x < -65504 ? -65504 : x;
}

// widenRange takes a value into a range; it orders -0 before 0, as Go's min and max do.
DEV void widenRange(float v, float& lo, float& hi) {
  bool minus = (asBits(v) >> 31) != 0;
  if (v < lo || (v == lo && minus)) lo = v;
  if (v > hi || (v == hi && !minus)) hi = v;
}

// saturateHalves is tame of two float16.
DEV u32 saturateHalves(u32 two) {
  u32 out = 0;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    u32 h = two >> (16 * i) & 0xffff, size = h & 0x7fff;
    if (size >= 0x7c00) h = size > 0x7c00 ? 0 : (h & 0x8000) | 0x7bff;
    out |= h << (16 * i);
  }
  return out;
}

// saturateAll is saturateHalves of many, which it looks at one by one only if there is
// something to do: zero times what is not finite is not zero.
template <int N>
DEV void saturateAll(u32 (&h)[N]) {
  u32 odd = 0;
#pragma unroll
  for (int i = 0; i < N; i++) odd = mulAddHalves(h[i], 0, odd);
  if (!(odd & 0x7fff7fff)) return;
#pragma unroll
  for (int i = 0; i < N; i++) h[i] = saturateHalves(h[i]);
}

// A code's levels 0 … kLast, and kSpan, the power of two above them.
template <bool FOUR>
struct Levels {
  static constexpr float kLast = FOUR ? 15 : 3, kSpan = FOUR ? 16 : 4, kMiddle = FOUR ? 7.5f : 1.5f;

  // of is floor((x - zero) · inverse + 1/2) within the levels. What is rounded is a
  // span-th of it, which changes no bit; one sum then keeps it from below 0 and from
  // above the span. inv is a span-th of the inverse.
  DEV float of(float x, float zero, float inv) {
    constexpr float kWhole = 8388608;  // 2^23: what is added to it loses its fraction
    float part = addSaturate(mulRound(subRound(x, zero), inv), 0.5f / kSpan);
    float y = fusedDown(part, kSpan, kWhole);
    return (y < kWhole + kLast ? y : kWhole + kLast) - kWhole;
  }
  DEV float inverse(float scale) { return scale == 0 ? 0 : divRound(1, scale) * (1 / kSpan); }

  // candidate is the scale and zero of one clip.
  DEV void candidate(float& scale, float& zero, float centre, float reach, int clip, bool symmetric) {
    const float two[5] = {1, 0.8f, 0.67f, 0.57f, 0.47f}, both[5] = {1, 0.9f, 0.8f, 0.7f, 0.6f};
    scale = widen(narrow(tame(divRound(mulRound(reach, FOUR ? both[clip] : two[clip]), kMiddle))));
    zero = -mulRound(kMiddle, scale);
    if (!symmetric) zero = widen(narrow(tame(addRound(centre, zero))));
  }
};

// What a token's channels of a segment are coded with.
struct Fit {
  float scale, zero;
};

// A word of a plane is put together from float16 sums of codes times powers of four,
// whose low bytes are those of the sum where it is kOneK more: exact below 2,048.
struct Words {
  static constexpr u32 kOneK = 0x64006400;  // 1,024 twice
  DEV u32 power(int i) { return i == 0 ? 0x3c003c00 : i == 1 ? 0x44004400 : i == 2 ? 0x4c004c00 : 0x54005400; }

  // upper is a 4-bit code's upper half.
  DEV u32 upper(u32 code) {
    u32 less = mulAddHalves(code, 0x3c003c00, 0xbe00be00);  // - 1.5
    return mulAddHalves(mulAddHalves(less, 0x34003400, 0x64046404), 0x3c003c00, 0xe404e404);  // / 4 to nearest, by way of 1,028
  }

  // bytes are the low bytes of four sums.
  DEV u32 bytes(u32 a, u32 b) { return permute<0x6420>(a, b); }

  // keyWord makes the words of sixteen channels: byte b has channels 4i + b.
  template <bool FOUR>
  DEV void keyWord(u32& top, u32& low, const u32 (&code)[8]) {
    u32 all[2] = {FOUR ? 0 : kOneK, FOUR ? 0 : kOneK}, up[2] = {kOneK, kOneK};
#pragma unroll
    for (int k = 0; k < 8; k++) {
      all[k % 2] = mulAddHalves(code[k], power(k / 2), all[k % 2]);
      if (FOUR) up[k % 2] = mulAddHalves(upper(code[k]), power(k / 2), up[k % 2]);
    }
    planes<FOUR>(top, low, all[0], all[1], up[0], up[1]);
  }

  // valueWords makes a token's bytes of sixteen channels: byte j of eight has channels
  // j and 8 + j, in its low four bits.
  template <bool FOUR>
  DEV void valueWords(u32 (&top)[2], u32 (&low)[2], const u32 (&code)[8]) {
    u32 all[4], up[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      all[k] = mulAddHalves(code[k + 4], power(1), mulAddHalves(code[k], power(0), FOUR ? 0 : kOneK));
      if (FOUR) up[k] = mulAddHalves(upper(code[k + 4]), power(1), mulAddHalves(upper(code[k]), power(0), kOneK));
    }
#pragma unroll
    for (int i = 0; i < 2; i++) planes<FOUR>(top[i], low[i], all[2 * i], all[2 * i + 1], up[2 * i], up[2 * i + 1]);
  }

  // planes are a word's from the sums of all bits and of upper ones.
  template <bool FOUR>
  DEV void planes(u32& top, u32& low, u32 all0, u32 all1, u32 up0, u32 up1) {
    low = 0;
    if (!FOUR) {
      top = bytes(all0, all1);
      return;
    }
    top = bytes(up0, up1);
    low = bytes(lower(all0, up0), lower(all1, up1));
  }
  DEV u32 lower(u32 all, u32 up) {
    u32 rest = mulAddHalves(up, 0x3c003c00, 0xe400e400);  // - 1,024
    return mulAddHalves(mulAddHalves(rest, 0xc400c400, all), 0x3c003c00, kOneK);  // all - 4 · rest
  }
};
