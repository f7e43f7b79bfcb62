// Streams, events and graphs of the emulated GPUs. CUDA promises the order of work
// within a stream and what events say, and nothing else; each GPU has a schedule of
// its own of what it may do then, so that a test finds what nobody waits for.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "emu.h"

namespace emu {
enum Schedule {
  kAtOnce,        // work is done when it is put into a stream
  kLate,          // when somebody waits for it, and no more than that
  kCopiesFirst,   // copies as soon as nothing in their stream is before them, kernels late
  kKernelsFirst,  // the other way round
  kRandom,        // some work of some streams at every call
  kSchedules
};
// The GPUs: two of the first schedule, and one of each other (cudatest knows them).
constexpr int kDevices = kSchedules + 1;
static Schedule scheduleOf(int device) { return (Schedule)(device < 1 ? 0 : device - 1); }

struct Stream;
// A point in a stream that an event was recorded at.
struct Mark {
  Stream* stream;
  bool done;
};
struct Event {
  bool timed;
  std::shared_ptr<Mark> last;  // where it was recorded last
};
struct Work {
  const Kernel* kernel = nullptr;
  u32 grid[3] = {};
  int threads = 0, shared = 0;  // shared memory's bytes
  std::vector<u8> params;
  std::function<void()> other;  // than a kernel
  bool copies = false;
  std::shared_ptr<Mark> record, wait;
};
struct Stream {
  int device;
  std::deque<Work> queue;
};
struct Graph {
  std::vector<Work> work;
};
enum { kInvalid = 1, kLaunchFailed = 719, kNotReady = 600, kUnsupportedInCapture = 900 };

static int compute(const Work& w, int device);

static std::recursive_mutex computing;  // guards all that follows
static std::vector<Stream*> streams[kDevices];
static int broken[kDevices];  // the first failure, of all later calls too
static u64 dice = 1;
static thread_local int device = -1;  // of the thread's context
static thread_local Stream* capturing;
static thread_local Graph* captured;

// at is the stream of a handle, 0 the default one of the thread's GPU; null where
// it is another GPU's.
static Stream* at(void* handle) {
  if (device < 0) return nullptr;
  if (!handle) {
    auto& all = streams[device];
    if (all.empty()) all.push_back(new Stream{device, {}});
    return all[0];
  }
  Stream* s = (Stream*)handle;
  return s->device == device ? s : nullptr;
}

static u32 throwDice(u32 sides) {
  dice = dice * 6364136223846793005ull + 1442695040888963407ull;
  return (u32)(dice >> 33) % sides;
}

// mayRun reports whether the first work of a stream waits for nothing.
static bool mayRun(const Stream* s) { return !s->queue.empty() && (!s->queue.front().wait || s->queue.front().wait->done); }

// next does the first work of a stream.
static void next(Stream* s) {
  Work w = std::move(s->queue.front());
  s->queue.pop_front();
  if (w.record) w.record->done = true;
  if (w.kernel || w.other) {
    if (int code = broken[s->device] ? 0 : compute(w, s->device)) broken[s->device] = code;
  }
}

static void someOf(int device) {
  auto& all = streams[device];
  for (u32 n = throwDice(4); n > 0; n--) {
    Stream* s = all[throwDice((u32)all.size())];
    if (mayRun(s)) next(s);
  }
}

// reach does what a point in a stream needs.
static void reach(const Mark& m) {
  while (!m.done) {
    Stream* s = m.stream;
    if (scheduleOf(s->device) == kRandom) {
      someOf(s->device);
      if (m.done) return;
    }
    if (!mayRun(s)) reach(*s->queue.front().wait);
    next(s);
  }
}
static void finish(Stream* s) {
  while (!s->queue.empty()) {
    if (!mayRun(s)) reach(*s->queue.front().wait);
    next(s);
  }
}
static void finishAll(int device) {
  for (Stream* s : streams[device]) finish(s);
}

// waits reports whether a schedule leaves work until somebody waits for it.
static bool waits(Schedule how, const Work& w) {
  if (how == kCopiesFirst) return w.kernel || (w.other && !w.copies);
  return how == kLate || w.copies;
}

// stir does what a GPU's schedule does by itself.
static void stir(int device) {
  Schedule how = scheduleOf(device);
  if (how == kAtOnce) return finishAll(device);
  if (how == kRandom) return someOf(device);
  for (bool moved = true; moved;) {
    moved = false;
    for (Stream* s : streams[device])
      for (; mayRun(s) && !waits(how, s->queue.front()); moved = true) next(s);
  }
}

// put adds work to a stream, or to the graph that captures it.
static int put(void* handle, Work w) {
  std::lock_guard<std::recursive_mutex> lock(computing);
  Stream* s = at(handle);
  if (!s) return kInvalid;
  if (capturing == s) {
    if (w.record || w.wait) return kUnsupportedInCapture;
    captured->work.push_back(std::move(w));
    return 0;
  }
  if (broken[device]) return broken[device];
  s->queue.push_back(std::move(w));
  stir(device);
  int code = broken[device];
  if (scheduleOf(device) == kAtOnce) broken[device] = 0;  // who put it has been told
  return code;
}
}  // namespace emu

#define API extern "C" __attribute__((visibility("default"))) int

API cuStreamCreate(void** s, unsigned) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  if (!at(nullptr)) return kInvalid;
  auto made = new Stream{device, {}};
  streams[device].push_back(made);
  *s = made;
  return 0;
}
API cuStreamDestroy_v2(void* handle) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  Stream* s = at(handle);
  if (!s || !handle) return kInvalid;
  finish(s);
  for (auto& other : streams[device])
    if (other == s) {
      other = streams[device].back();
      streams[device].pop_back();
      break;
    }
  delete s;
  return 0;
}
API cuStreamSynchronize(void* handle) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  Stream* s = at(handle);
  if (!s) return kInvalid;
  if (capturing) return kUnsupportedInCapture;
  finish(s);
  return broken[device];
}
API cuStreamWaitEvent(void* s, emu::Event* e, unsigned) {
  using namespace emu;
  Work w;
  w.wait = e->last;
  return e->last ? put(s, std::move(w)) : 0;
}
API cuEventCreate(emu::Event** e, unsigned flags) {
  *e = new emu::Event{!(flags & 2), nullptr};
  return 0;
}
API cuEventRecord(emu::Event* e, void* handle) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  Stream* s = at(handle);
  if (!s) return kInvalid;
  Work w;
  w.record = std::make_shared<Mark>(Mark{s, false});
  auto mark = w.record;
  int code = put(handle, std::move(w));
  if (!code) e->last = mark;
  return code;
}
API cuEventSynchronize(emu::Event* e) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  if (capturing) return kUnsupportedInCapture;
  if (e->last) reach(*e->last);
  return broken[device];
}
API cuEventElapsedTime(float* ms, emu::Event* a, emu::Event* b) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  if (!a->timed || !b->timed || !a->last || !b->last) return 400;
  *ms = 0;
  return a->last->done && b->last->done ? 0 : kNotReady;
}
API cuEventDestroy_v2(emu::Event* e) {
  std::lock_guard<std::recursive_mutex> lock(emu::computing);
  delete e;
  return 0;
}
API cuStreamBeginCapture_v2(void* handle, int) {
  using namespace emu;
  std::lock_guard<std::recursive_mutex> lock(computing);
  if (capturing || !handle || !at(handle)) return kInvalid;
  capturing = at(handle);
  captured = new Graph;
  return 0;
}
API cuStreamEndCapture(void* handle, emu::Graph** g) {
  using namespace emu;
  if (!capturing || capturing != handle) return kInvalid;
  *g = captured;
  capturing = nullptr;
  captured = nullptr;
  return 0;
}
API cuGraphInstantiateWithFlags(emu::Graph** e, emu::Graph* g, u64) {
  *e = new emu::Graph(*g);
  return 0;
}
API cuGraphLaunch(emu::Graph* e, void* s) {
  for (auto& w : e->work)
    if (int code = emu::put(s, w)) return code;
  return 0;
}
API cuGraphExecDestroy(emu::Graph* e) {
  delete e;
  return 0;
}
API cuGraphDestroy(emu::Graph* g) {
  delete g;
  return 0;
}
