// Runs CUDA kernels on a CPU, to test them where there is no GPU.
//
// Every thread of a block is a fiber of one OS thread, and a scheduler decides which runs.
// The point is to be unkind: a kernel that leans on luck must fail here.
//   * Schedules: in lockstep, at random, or greedily warp by warp (a warp runs until the next block
//     barrier before any other warp starts). A missing barrier shows under one of them.
//   * cp.async lands either at once or only at the wait, so both "read too early" and "overwritten
//     too early" show.
//   * Shared memory starts as NaN patterns and has its exact size, so that AddressSanitizer sees
//     what compute-sanitizer would see.
//   * Barriers that not all threads reach, warp operations that not all lanes reach, lanes at
//     different operations, and copies nobody waited for are errors.
// Not here: memory fences between blocks, wgmma, TMA, clusters. Blocks run one after the other.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

using std::fma;
using std::fmaf;
using std::fminf;
using std::sqrt;

namespace simt {

enum class Schedule { Lockstep, Random, Forward, Reverse, Shuffled };
enum class Copies { Early, Late };
struct Settings {
  Schedule schedule = Schedule::Lockstep;
  Copies copies = Copies::Late;
  unsigned seed = 1;
};
struct Counters {  // of everything launched since the caller last cleared them
  int64_t bytes_read = 0, bytes_written = 0, barriers = 0, products = 0;
};
inline Settings settings;
inline Counters counters;

// ---- fibers
constexpr size_t STACK = 128 * 1024;  // AddressSanitizer's frames are large
#if defined(__x86_64__)
// swapcontext asks the kernel for the signal mask each time, which would be most of a test's time.
struct Context {
  void* stack = nullptr;
};
extern "C" void simt_switch(void** from, void* to);
asm(".text\n.weak simt_switch\nsimt_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
inline void change(Context& from, Context& to) { simt_switch(&from.stack, to.stack); }
inline void prepare(Context& context, char* memory, void (*entry)()) {
  uintptr_t top = (reinterpret_cast<uintptr_t>(memory) + STACK) & ~uintptr_t{15};
  void** const p = reinterpret_cast<void**>(top) - 8;  // six registers, where to go, no way back
  std::fill(p, p + 8, nullptr);
  p[6] = reinterpret_cast<void*>(entry);
  context.stack = p;
}
#else
using Context = ucontext_t;
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
inline void prepare(Context& context, char* memory, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = memory;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

enum class State { Ready, AtBarrier, AtWarp, Done };
constexpr int WARP = 32, WORDS = 8;

struct Copy {
  void* to;
  const void* from;
  int group;
};
struct Fiber {
  Context context;
  dim3 index;
  int lane = 0, warp = 0, group = 0, turn = 0;
  State state = State::Ready;
  std::unique_ptr<char[]> stack{new char[STACK]};
  std::vector<Copy> copies;
};
// What the lanes of a warp show each other. Two sides: a fast lane may already be at the next operation
// while a slow one still reads the last.
struct Exchange {
  uint32_t word[2][WARP][WORDS];
  const char* operation[2][WARP];
};
struct Freed {
  void operator()(char* p) const { std::free(p); }
};
using Memory = std::unique_ptr<char, Freed>;

struct Block {
  Context scheduler;
  std::vector<Fiber> fibers;
  std::vector<Exchange> warps;
  dim3 index, size, grid;
  Memory dynamic;
  std::map<int, Memory> arrays;
  std::function<void()> body;
  std::string error;
};
inline Block* block = nullptr;
inline Fiber* self = nullptr;

inline Memory poisoned(size_t bytes) {
  void* p = nullptr;  // exact size: one byte past the end is AddressSanitizer's
  if (bytes == 0) return Memory();
  if (posix_memalign(&p, 128, bytes)) throw std::bad_alloc();
  std::memset(p, 0xff, bytes);  // NaN as a float, bf16 or double
  return Memory(static_cast<char*>(p));
}

inline void pause(State state) {
  self->state = state;
  change(self->context, block->scheduler);
}

// An exception cannot leave a fiber: the scheduler throws it instead.
[[noreturn]] inline void fail(const std::string& message) {
  block->error = message;
  for (;;) pause(State::AtBarrier);
}

inline void enter() {
  block->body();
  if (!self->copies.empty()) fail("a thread ended before its asynchronous copies were waited for");
  for (;;) pause(State::Done);
}

inline void start(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)  // the last kernel's frames were left, not returned from
  __asan_unpoison_memory_region(fiber.stack.get(), STACK);
#endif
  prepare(fiber.context, fiber.stack.get(), enter);
  fiber.state = State::Ready;
  fiber.copies.clear();
  fiber.group = fiber.turn = 0;
}

struct Scheduler {
  Block& b;
  std::mt19937 random;
  std::vector<int> threads, warps;

  explicit Scheduler(Block& running) : b(running), random(settings.seed * 7919u + running.index.x * 31u + running.index.y) {
    for (size_t i = 0; i < b.fibers.size(); i++) threads.push_back(static_cast<int>(i));
    for (size_t i = 0; i < b.warps.size(); i++) warps.push_back(static_cast<int>(i));
    if (settings.schedule == Schedule::Reverse) std::reverse(warps.begin(), warps.end());
  }

  bool resume(int thread) {
    Fiber& fiber = b.fibers[thread];
    if (fiber.state != State::Ready) return false;
    self = &fiber;
    change(b.scheduler, fiber.context);
    if (!b.error.empty()) throw std::runtime_error("simt: " + b.error);
    return true;
  }

  // Lets a warp go on once all its lanes are at the same warp operation.
  bool release(int warp) {
    const int from = warp * WARP, to = std::min<int>(threads.size(), from + WARP);
    for (int i = from; i < to; i++)
      if (b.fibers[i].state != State::AtWarp) return false;
    const int side = (b.fibers[from].turn - 1) & 1;
    for (int i = from; i < to; i++) {
      if (std::strcmp(b.warps[warp].operation[side][i - from], b.warps[warp].operation[side][0]) != 0)
        throw std::runtime_error("simt: lanes of one warp are at different operations");
      b.fibers[i].state = State::Ready;
    }
    return true;
  }

  bool greedy(int warp) {  // as far as this warp can go alone
    bool moved = false, more = true;
    while (more) {
      more = false;
      for (int i = warp * WARP; i < std::min<int>(threads.size(), warp * WARP + WARP); i++) more |= resume(i);
      more |= release(warp);
      moved |= more;
    }
    return moved;
  }

  bool round() {
    bool moved = false;
    if (settings.schedule == Schedule::Lockstep || settings.schedule == Schedule::Random) {
      if (settings.schedule == Schedule::Random) std::shuffle(threads.begin(), threads.end(), random);
      for (int thread : threads) moved |= resume(thread);
      for (int warp : warps) moved |= release(warp);
    } else {
      if (settings.schedule == Schedule::Shuffled) std::shuffle(warps.begin(), warps.end(), random);
      for (int warp : warps) moved |= greedy(warp);
    }
    return moved;
  }

  void run() {
    for (;;) {
      const bool moved = round();
      size_t done = 0, waiting = 0;
      for (auto& fiber : b.fibers) {
        done += fiber.state == State::Done;
        waiting += fiber.state == State::AtBarrier;
      }
      if (done == b.fibers.size()) return;
      if (waiting && waiting + done == b.fibers.size()) {
        if (done) throw std::runtime_error("simt: some threads ended before a __syncthreads of the others");
        for (auto& fiber : b.fibers) fiber.state = State::Ready;
        counters.barriers++;
      } else if (!moved) {
        throw std::runtime_error("simt: deadlock, not all threads reach the same barrier or warp operation");
      }
    }
  }
};

// Runs `body` as kernel: a grid of blocks with `shared` bytes of dynamic shared memory each.
inline void launch(dim3 grid, dim3 size, size_t shared, std::function<void()> body) {
  Block b;
  const int threads = static_cast<int>(size.x * size.y * size.z);
  if (threads % WARP) throw std::runtime_error("simt: the block is not made of whole warps");
  b.fibers = std::vector<Fiber>(threads);
  b.warps.resize(threads / WARP);
  b.size = size;
  b.grid = grid;
  b.body = std::move(body);
  for (int i = 0; i < threads; i++) {
    b.fibers[i].index = dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
    b.fibers[i].lane = i % WARP;
    b.fibers[i].warp = i / WARP;
  }
  for (unsigned y = 0; y < grid.y; y++)
    for (unsigned x = 0; x < grid.x; x++) {
      b.index = dim3(x, y, 0);
      b.dynamic = poisoned(shared);
      b.arrays.clear();
      block = &b;
      for (auto& fiber : b.fibers) start(fiber);
      Scheduler(b).run();
    }
}

// ---- global memory: counted, so that a test can hold a kernel to its traffic
template <class T>
T read(const T* p) {
  counters.bytes_read += sizeof(T);
  return *p;
}
template <class T, class V>
void write(T* p, V v) {
  counters.bytes_written += sizeof(T);
  *p = v;
}

// ---- shared memory
inline char* dynamic_shared() { return block->dynamic.get(); }
template <class T, int N>
T* shared_array(int tag) {
  Memory& memory = block->arrays[tag];
  if (!memory) memory = poisoned(sizeof(T) * N);
  return reinterpret_cast<T*>(memory.get());
}

// ---- warp operations: each lane shows some words, then reads those of the others
inline const uint32_t (*exchange(const char* operation, const void* words, size_t bytes))[WORDS] {
  Exchange& warp = block->warps[self->warp];
  const int side = self->turn++ & 1;
  std::memcpy(warp.word[side][self->lane], words, bytes);
  warp.operation[side][self->lane] = operation;
  pause(State::AtWarp);
  return warp.word[side];
}
template <class T>
T from_lane(const char* operation, unsigned mask, T value, int source) {
  if (mask != 0xffffffffu) fail("a warp operation without all lanes in its mask");
  auto shown = exchange(operation, &value, sizeof(T));
  T result;
  std::memcpy(&result, shown[source & 31], sizeof(T));
  return result;
}

// ---- cp.async
inline void land(const Copy& c) { std::memcpy(c.to, c.from, 16); }
inline void cp_async16(void* to, const void* from) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    fail("a 16-byte copy that is not aligned");
  counters.bytes_read += 16;
  const Copy copy{to, from, self->group};
  if (settings.copies == Copies::Early) land(copy);
  self->copies.push_back(copy);
}
inline void cp_commit() { self->group++; }
template <int PENDING>
void cp_wait() {
  auto landed = [](const Copy& c) { return c.group < self->group - PENDING; };
  for (auto& copy : self->copies)
    if (landed(copy) && settings.copies == Copies::Late) land(copy);
  auto& all = self->copies;
  all.erase(std::remove_if(all.begin(), all.end(), landed), all.end());
}

// ---- tensor cores, with the fragment layouts of the PTX ISA ("Matrix Fragments for mma.m16n8k16")
inline float from_bf16(uint32_t bits) {
  bits <<= 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
// Lanes 8m..8m+7 name the rows of matrix m; lane l gets words l%4 of row l/4 of each matrix.
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix: a row that is not aligned to 16 bytes");
  const uint64_t address = reinterpret_cast<uint64_t>(row);
  auto shown = exchange("ldmatrix", &address, sizeof(address));
  for (int m = 0; m < 4; m++) {
    uint64_t source;
    std::memcpy(&source, shown[m * 8 + self->lane / 4], sizeof(source));
    std::memcpy(&r[m], reinterpret_cast<const char*>(source) + 4 * (self->lane % 4), 4);
  }
}
// d(16x8) = a(16x16) b(16x8) + c. The sum is cut off, not rounded, as tensor cores do at their worst.
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {
  const uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
  auto shown = exchange("mma", words, sizeof(words));
  const int group = self->lane / 4, pair = self->lane % 4;
  float result[4];
  for (int e = 0; e < 4; e++) {
    const int row = group + 8 * (e / 2), column = 2 * pair + e % 2;
    double sum = c[e];
    for (int k = 0; k < 16; k++) {
      const uint32_t wa = shown[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
      const uint32_t wb = shown[column * 4 + k % 8 / 2][4 + k / 8];
      sum += double(from_bf16(k % 2 ? wa >> 16 : wa & 0xffff)) * from_bf16(k % 2 ? wb >> 16 : wb & 0xffff);
    }
    result[e] = static_cast<float>(sum);
    if (std::fabs(double(result[e])) > std::fabs(sum)) result[e] = std::nextafter(result[e], 0.0f);
  }
  std::memcpy(d, result, sizeof(result));
  counters.products += self->lane == 0;
}

}  // namespace simt

#define threadIdx (simt::self->index)
#define blockIdx (simt::block->index)
#define blockDim (simt::block->size)
#define gridDim (simt::block->grid)
inline void __syncthreads() { simt::pause(simt::State::AtBarrier); }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return simt::from_lane("shuffle", mask, value, simt::self->lane ^ bits);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return simt::from_lane("shuffle", mask, value, source);
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
  if (mask != 0xffffffffu) simt::fail("a warp operation without all lanes in its mask");
  const uint32_t word = vote;
  auto shown = simt::exchange("ballot", &word, sizeof(word));
  unsigned result = 0;
  for (int lane = 0; lane < simt::WARP; lane++) result |= unsigned(shown[lane][0] != 0) << lane;
  return result;
}
inline int __ffs(unsigned v) { return __builtin_ffs(static_cast<int>(v)); }
// Fibers change only at barriers and warp operations: plain code between them is atomic.
template <class T, class V>
T atomicMin(T* p, V v) {
  const T old = *p;
  *p = std::min<T>(old, v);
  return old;
}
template <class T, class V>
T atomicMax(T* p, V v) {
  const T old = *p;
  *p = std::max<T>(old, v);
  return old;
}
template <class T, class V>
T atomicAdd(T* p, V v) {
  const T old = *p;
  *p = old + v;
  return old;
}
// Multiply and add rounded apart: the compiler must not contract (-ffp-contract=off where it could).
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline unsigned __float_as_uint(float f) {
  unsigned u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline int __float_as_int(float f) { return static_cast<int>(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(static_cast<unsigned>(i)); }
