// Blocks of the emulated GPUs: their threads are fibers, which run until they wait
// for each other. GPUs with even numbers copy to shared memory as late as they may and
// multiply as early, those with odd numbers the other way round; and they begin with a
// block's last thread.
#pragma once
#include <sys/mman.h>

#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "emu.h"

// emuSwitch saves the callee's registers and stack, and goes on where another
// fiber did.
extern "C" void emuSwitch(void** save, void* to);
asm(R"(
.text
.globl emuSwitch
.type emuSwitch,@function
emuSwitch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace emu {
constexpr size_t kStack = 64 << 10;
constexpr int kMaxShared = 227 << 10, kPage = 4096, kBarriers = 16;

struct Warp {
  Operand slots[2][32];
  int arrived = 0, generation = 0;
};
// Copy is one that its thread has not waited for yet, of the group'th group.
struct Copy {
  void* dst;
  const void* src;
  int group;
};
struct Fiber {
  void* sp = nullptr;
  u32 tid = 0;
  Warp* warp = nullptr;
  bool done = false;
  bool waiting = false;
  int barrier = 0;  // that it waits at, of blockSync's kind
  const u64* phase = nullptr;  // a barrier in shared memory that it waits for
  u32 parity = 0;
  std::vector<Copy> copies;
  int copyGroup = 0;
  Products products;
};

Fiber* current;
Index theThread, theBlock, theGrid, theSize;
bool lateProducts;
static const char* fault;  // what a kernel did wrong
static void* scheduler;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static u8 *sharedMemory, *operandMemory;
static int sharedBytes;
static bool fenced;  // stores that operandMemory lacks
static int arrived[kBarriers];
static std::deque<std::function<void()>> onTheWay;  // copies that nobody had to wait for yet
static void (*body)(const void*);
static const void* bodyParams;

u8* shared() { return sharedMemory; }
int lane() { return current->tid % 32; }
Products& products() { return current->products; }

static void pause() {
  Fiber* f = current;
  emuSwitch(&f->sp, scheduler);
}

void fail(const char* why) {
  if (!current) abort();  // no kernel's doing
  if (!fault) fault = why;
  current->waiting = true;
  current->barrier = -1;  // for ever
  for (;;) pause();
}

const Operand* meet(const void* operand, size_t n) {
  Fiber* f = current;
  Warp* w = f->warp;
  int generation = w->generation;
  memcpy(w->slots[generation & 1][f->tid % 32].b, operand, n);
  if (++w->arrived == 32) {
    w->arrived = 0;
    w->generation++;
    Fiber* first = &fibers[f->tid / 32 * 32];
    for (int i = 0; i < 32; i++) first[i].waiting = false;
  } else {
    f->waiting = true;
    f->barrier = -1;
    pause();
  }
  return w->slots[generation & 1];
}

// The tensor cores and bulk copies see shared memory by themselves: what threads
// store is there for them after an operandFence, here the last of a warp's, or its
// first barrier.
static void showStores() {
  if (fenced) memcpy(operandMemory, sharedMemory, sharedBytes);
  fenced = false;
}
void fenceStores() {
  fenced = true;
  if (lane() == 31) showStores();
}
const u8* operandAt(const u8* p) { return lateProducts ? p : p - sharedMemory + operandMemory; }
bool isShared(const void* p, size_t n) { return (const u8*)p >= sharedMemory && (const u8*)p + n <= sharedMemory + sharedBytes; }

void arriveAt(int barrier, int n, bool wait) {
  if (barrier < 0 || barrier >= kBarriers || n % 32 || n > (int)fibers.size()) fail("a barrier that is none");
  showStores();
  if (++arrived[barrier] == n) {
    arrived[barrier] = 0;
    for (auto& f : fibers)
      if (f.barrier == barrier) f.waiting = false;
  } else if (wait) {
    current->waiting = true;
    current->barrier = barrier;
    pause();
  }
}
void meetBlock() { arriveAt(0, (int)fibers.size(), true); }

// Copies past the registers, by thread.
static void copy(const Copy& c) {
  if (c.src) {
    memcpy(c.dst, c.src, 16);
  } else {
    memset(c.dst, 0, 16);
  }
}
void startCopy(void* dst, const void* src) {
  if (!isShared(dst, 16) || (uintptr_t)dst % 16 || (uintptr_t)src % 16) fail("a copy of odd places");
  Copy c{dst, src, current->copyGroup};
  if (!lateProducts) {
    current->copies.push_back(c);
  } else {
    copy(c);
  }
}
void commitCopies() { current->copyGroup++; }
void waitCopies(int n) {
  auto& all = current->copies;
  size_t k = 0;
  for (; k < all.size() && all[k].group < current->copyGroup - n; k++) copy(all[k]);
  all.erase(all.begin(), all.begin() + k);
}

// A barrier in shared memory is a count, how many are still to arrive, the bytes to
// come, and a phase.
struct Phase {
  u16 count, left;
  u32 mark : 15, parity : 1, bytes : 16;  // bytes to come, by 16
};
static_assert(sizeof(Phase) == 8, "a barrier");
constexpr u32 kMark = 0x2bad;

static Phase& phaseOf(u64* b) {
  if (!isShared(b, 8) || (uintptr_t)b % 8 || ((Phase*)b)->mark != kMark) fail("a barrier that nobody has begun");
  return *(Phase*)b;
}
static void mayEnd(Phase& p) {
  if (p.left || p.bytes) return;
  p.left = p.count;
  p.parity ^= 1;
}
void beginBarrier(u64* b, u32 n) {
  if (!isShared(b, 8) || (uintptr_t)b % 8 || !n || n > fibers.size()) fail("a barrier that is none");
  *(Phase*)b = Phase{(u16)n, (u16)n, kMark, 0, 0};
}
void arriveAt(u64* b, u32 bytes) {
  showStores();
  Phase& p = phaseOf(b);
  if (bytes % 16 || p.bytes + bytes / 16 > 0xffff) fail("a barrier of too many bytes");
  p.bytes += bytes / 16;
  p.left--;
  mayEnd(p);
}
bool cameAt(u64* b, u32 parity) { return phaseOf(b).parity != (parity & 1); }
void waitAt(u64* b, u32 parity) {
  if (cameAt(b, parity)) return;
  current->phase = b;
  current->parity = parity & 1;
  pause();
}
void bulk(void* dst, const void* src, u32 n, u64* b) {
  phaseOf(b);
  if (!isShared(dst, n) || (uintptr_t)dst % 16 || (uintptr_t)src % 16 || n % 16) fail("a bulk copy of odd places");
  auto all = [=] {
    memcpy(dst, src, n);
    memcpy((u8*)dst - sharedMemory + operandMemory, src, n);
    Phase& p = *(Phase*)b;
    p.bytes -= n / 16;
    mayEnd(p);
  };
  if (!lateProducts) {
    onTheWay.push_back(all);
  } else {
    all();
  }
}

static void fiberMain() {
  body(bodyParams);
  if (!current->products.queue.empty()) fail("products that nobody waits for");
  current->done = true;
  pause();
  abort();
}

// mayGo reports whether a fiber has nothing to wait for.
static bool mayGo(Fiber& f) {
  if (f.done || f.waiting) return false;
  if (f.phase && ((const Phase*)f.phase)->parity == f.parity) return false;
  f.phase = nullptr;
  return true;
}

// makeShared gives n bytes of shared memory, which begin at a multiple of 1,024 and
// end before a page that cannot be touched.
static u8* makeShared(int n) {
  constexpr int kWhole = (kMaxShared + kPage - 1) / kPage * kPage;
  static u8* end[2];
  static int which;
  u8*& e = end[which++ % 2];
  if (!e) {
    e = (u8*)mmap(nullptr, kWhole + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + kWhole;
    mprotect(e, kPage, PROT_NONE);
  }
  u8* base = e - (n + 1023) / 1024 * 1024;
  memset(base, 0xff, e - base);  // NaN: nothing is there at the start
  return base;
}

// groupsAgree reports whether the warps of every warpgroup began the same products.
static bool groupsAgree() {
  for (size_t t = 0; t < fibers.size(); t++)
    if (fibers[t].products.begun != fibers[t / 128 * 128].products.begun) return false;
  return true;
}

// stackOf is thread t's stack, in all blocks, of many threads and of few.
static u8* stackOf(int t) {
  static std::vector<std::unique_ptr<u8[]>> stacks;
  while ((int)stacks.size() <= t) stacks.emplace_back(new u8[kStack]);
  return stacks[t].get();
}

static bool runBlock(const Kernel* k, const void* params, int threads, int bytes) {
  sharedMemory = makeShared(bytes);
  operandMemory = makeShared(bytes);
  sharedBytes = (bytes + 1023) / 1024 * 1024;
  fibers.resize(threads);
  warps.assign(threads / 32, Warp());
  memset(arrived, 0, sizeof arrived);
  onTheWay.clear();
  fenced = false;
  fault = nullptr;
  body = k->run;
  bodyParams = params;
  for (int t = 0; t < threads; t++) {
    Fiber& f = fibers[t];
    f.tid = t;
    f.warp = &warps[t / 32];
    f.done = f.waiting = false;
    f.phase = nullptr;
    f.copies.clear();
    f.copyGroup = 0;
    f.products.clear();
    void** sp = (void**)(((uintptr_t)stackOf(t) + kStack) & ~(uintptr_t)15);
    *--sp = nullptr;
    *--sp = (void*)fiberMain;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    f.sp = sp;
  }
  for (int left = threads; left > 0;) {
    bool moved = false;
    for (int i = 0; i < threads; i++) {
      Fiber& f = fibers[lateProducts ? threads - 1 - i : i];
      if (!mayGo(f)) continue;
      moved = true;
      current = &f;
      theThread = {f.tid, 0, 0};
      emuSwitch(&scheduler, f.sp);
      if (f.done) left--;
    }
    current = nullptr;
    if (moved) continue;
    if (fault || onTheWay.empty()) return false;  // a deadlock: some lanes miss a meeting
    onTheWay.front()();
    onTheWay.pop_front();
  }
  if (!fault && !groupsAgree()) fault = "warps of a warpgroup that begin other products";
  return !fault;
}
}  // namespace emu

// What the compiler calls (-fsanitize=alignment) where an access is to an address that
// is no multiple of its width.
extern "C" __attribute__((visibility("default"))) void __ubsan_handle_type_mismatch_v1(const void* where, const void*) {
  struct Where {
    const char* file;
    u32 line, column;
  };
  static char text[300];
  snprintf(text, sizeof text, "an access to an address that is no multiple of its width (%s, line %u)", ((const Where*)where)->file, ((const Where*)where)->line);
  emu::fail(text);
}
