// Hopper's instructions: products of warpgroups, which run beside the threads, and
// barriers and copies in shared memory (see src/prim.cuh).
//
// What a product reads of shared memory it reads when it begins on some GPUs, and
// when its threads wait for it on the others; its sums are nonsense until then.
#pragma once

namespace emu {
// Tile is rows of an operand as a descriptor names them: 128 bytes whose 16-byte
// pieces are turned by the row. With columns a row is one number of each of 64
// columns, and the next 64 columns are so many bytes on.
struct Tile {
  const u8* p;
  u32 next;
  bool columns;
  const u8* at(int n, int k, int size) const {
    const u8* from = columns ? p + n / 64 * next + k * 128 + n % 64 * size : p + n * 128 + k * size;
    return (const u8*)((uintptr_t)from ^ ((uintptr_t)from >> 7 & 7) << 4);
  }
};
struct Product;
// Sums are the sums of products that have begun.
struct Sums {
  void* at;
  int n, group;
  u32 kept[128];
};
struct Product {
  void (*run)(const Product&, u32*);
  Tile a, b;
  u32 rows[2][8];  // A, where it is in registers
  void* sums;
  int group;
};
struct Products {
  std::vector<Product> queue;
  std::vector<Sums> sums;
  int group = 0, begun = 0;
  bool fenced = false;
  void clear() {
    queue.clear(), sums.clear();
    group = begun = 0;
    fenced = false;
  }
};
extern bool lateProducts;
Products& products();
[[noreturn]] void fail(const char* why);
void fenceStores();
const u8* operandAt(const u8* p);
bool isShared(const void* p, size_t n);
void arriveAt(int barrier, int n, bool wait);
void arriveAt(u64* b, u32 bytes);
void beginBarrier(u64* b, u32 n);
void waitAt(u64* b, u32 parity);
bool cameAt(u64* b, u32 parity);
void bulk(void* dst, const void* src, u32 n, u64* b);

struct SignedByte {
  using Sum = int;
  static constexpr int kSize = 1;
  static int of(const u8* p) { return (signed char)*p; }
};
struct Half {
  using Sum = float;
  static constexpr int kSize = 2;
  static float of(const u8* p) { return widen((u16)(p[0] | p[1] << 8)); }
};
// multiply adds a lane's share of a product: N columns, 32 bytes deep.
template <int N, class A, class B, bool REGISTERS, bool MORE>
void multiply(const Product& p, u32* c) {
  using Sum = typename A::Sum;
  constexpr int kDepth = 32 / A::kSize;
  int l = lane(), row = threadIdx.x / 32 % 4 * 16 + l / 4;
  Sum a[2][kDepth];
  for (int h = 0; h < 2; h++)
    for (int k = 0; k < kDepth; k++)
      a[h][k] = A::of(REGISTERS ? (const u8*)p.rows[h] + k * A::kSize : operandAt(p.a.at(row + 8 * h, k, A::kSize)));
  for (int i = 0; i < N / 2; i += 2) {  // pairs of sums: rows of a lane
    int at = i / 4 * 4 + i / 2 % 2, n = i / 4 * 8 + l % 4 * 2 + i / 2 % 2;
    Sum sum[2] = {};
    if (MORE) memcpy(&sum[0], c + at, 4), memcpy(&sum[1], c + at + 2, 4);
    for (int k = 0; k < kDepth; k++) {
      Sum b = B::of(operandAt(p.b.at(n, k, B::kSize)));
      sum[0] += a[0][k] * b, sum[1] += a[1][k] * b;
    }
    memcpy(c + at, &sum[0], 4), memcpy(c + at + 2, &sum[1], 4);
  }
}

// begin begins a product whose sums are n words.
inline void begin(void* sums, int n, const Product& product) {
  Products& all = products();
  warpSync();
  for (const Tile* t : {&product.a, &product.b})
    if (t->p && (!isShared(t->p, 128) || (uintptr_t)t->p % 16 || (uintptr_t)t->p >> 7 & 7 || t->next % 1024)) fail("an operand that begins at no multiple of eight rows");
  if (!all.fenced) fail("a product of registers that no fence has settled");
  Sums* s = nullptr;
  for (auto& other : all.sums)
    if (other.at == sums) s = &other;
  if (!s) {
    all.sums.push_back({});
    s = &all.sums.back();
    s->at = sums, s->n = n;
    memcpy(s->kept, sums, 4 * n);
    for (int i = 0; i < n; i++) ((volatile u32*)sums)[i] = 0x7fc0dead;
  }
  s->group = all.group;
  all.begun++;
  all.queue.push_back(product);
  all.queue.back().sums = sums;
  all.queue.back().group = all.group;
  if (!lateProducts) {
    product.run(product, s->kept);
    all.queue.back().run = nullptr;
  }
}

inline void finish(int group, void* const* named, int n) {
  Products& all = products();
  while (!all.queue.empty() && all.queue.front().group < group) {
    const Product& p = all.queue.front();
    for (auto& s : all.sums)
      if (p.run && s.at == p.sums) p.run(p, s.kept);
    all.queue.erase(all.queue.begin());
    all.fenced = false;
  }
  for (size_t i = 0; i < all.sums.size();) {
    Sums& s = all.sums[i];
    bool isNamed = false, ended = s.group < group;
    for (int k = 0; k < n; k++) isNamed |= named[k] == s.at;
    if (isNamed != ended) fail(ended ? "sums that a wait does not name" : "sums that a wait does not wait for");
    if (!ended) {
      i++;
      continue;
    }
    memcpy(s.at, s.kept, 4 * s.n);
    all.sums.erase(all.sums.begin() + i);
  }
}
}  // namespace emu

DEV void operandFence() { emu::fenceStores(); }
DEV void groupFence() { emu::products().fenced = true; }
DEV void groupCommit() { emu::products().group++; }
template <class T>
DEV void groupFence(T&) {
  groupFence();
}
template <class T>
DEV void holdSums(T&) {}
template <int N, class... T>
DEV void groupWaitFor(T&... sums) {
  warpSync();
  void* named[] = {(void*)&sums...};
  emu::finish(emu::products().group - N, named, (int)sizeof...(sums));
}
template <class... T>
DEV void groupWait(T&... sums) {
  groupWaitFor<0>(sums...);
}
using GroupOperand = emu::Tile;
DEV emu::Tile groupOperand(const u8* p) { return {p, 0, false}; }
DEV emu::Tile keepOperand(emu::Tile t) { return t; }
DEV emu::Tile groupAlong(emu::Tile t, int bytes) { return {t.p + bytes, t.next, t.columns}; }
DEV emu::Tile groupColumns(const u8* p, u32 next) { return {p, next, true}; }
// rowsOf is what the lanes' registers hold of a lane's two rows.
DEV emu::Product rowsOf(const u32 (&a)[4], emu::Product p) {
  const emu::Operand* o = emu::meet(a, sizeof a);
  for (int h = 0; h < 2; h++)
    for (int w = 0; w < 8; w++) memcpy(&p.rows[h][w], o[emu::lane() / 4 * 4 + w % 4].b + 4 * (h + 2 * (w / 4)), 4);
  return p;
}
template <bool MORE>
DEV void groupSigned(int (&c)[32], const u32 (&a)[4], emu::Tile b) {
  emu::begin(c, 32, rowsOf(a, {emu::multiply<64, emu::SignedByte, emu::SignedByte, true, MORE>, {}, b}));
}
template <bool MORE>
DEV void groupSigned(int (&c)[16], emu::Tile a, emu::Tile b) {
  emu::begin(c, 16, {emu::multiply<32, emu::SignedByte, emu::SignedByte, false, MORE>, a, b});
}
template <bool MORE>
DEV void groupSigned(int (&c)[32], emu::Tile a, emu::Tile b) {
  emu::begin(c, 32, {emu::multiply<64, emu::SignedByte, emu::SignedByte, false, MORE>, a, b});
}
template <bool MORE>
DEV void groupHalf(float (&c)[32], emu::Tile a, emu::Tile b) {
  emu::begin(c, 32, {emu::multiply<64, emu::Half, emu::Half, false, MORE>, a, b});
}
template <bool MORE>
DEV void groupHalf(float (&c)[32], const u32 (&a)[4], emu::Tile b) {
  emu::begin(c, 32, rowsOf(a, {emu::multiply<64, emu::Half, emu::Half, true, MORE>, {}, b}));
}
template <bool MORE>
DEV void groupHalf(float (&c)[16][4], emu::Tile a, emu::Tile b) {
  emu::begin(c, 64, {emu::multiply<128, emu::Half, emu::Half, false, MORE>, a, b});
}
template <bool COLUMNS, int N>
DEV void groupWeigh(float (&c)[N][4], const u32 (&a)[4], emu::Tile b) {
  if (b.columns != COLUMNS) emu::fail("an operand by rows where columns are multiplied, or the other way round");
  emu::begin(c, 4 * N, rowsOf(a, {emu::multiply<8 * N, emu::Half, emu::Half, true, true>, {}, b}));
}

DEV void barrierInit(u64* b, u32 arrivals) { emu::beginBarrier(b, arrivals); }
DEV void barrierFence() {}
DEV void barrierArrive(u64* b) { emu::arriveAt(b, 0); }
DEV void barrierExpect(u64* b, u32 n) { emu::arriveAt(b, n); }
DEV void barrierWait(u64* b, u32 parity) { emu::waitAt(b, parity); }
DEV bool barrierCame(u64* b, u32 parity) { return emu::cameAt(b, parity); }
DEV void copyBulk(void* dst, const void* src, u32 n, u64* b) { emu::bulk(dst, src, n, b); }
DEV void someSync(int barrier, int n) { emu::arriveAt(barrier, n, true); }
DEV void someArrive(int barrier, int n) { emu::arriveAt(barrier, n, false); }
template <int N>
DEV void moreRegisters() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers come by eight");
}
template <int N>
DEV void fewerRegisters() {
  moreRegisters<N>();
}
