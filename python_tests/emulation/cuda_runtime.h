// CUDA's run time on the CPU, for tests: the very kernel sources run with one fiber a thread.
//
// A block's threads take turns on one processor thread and switch wherever CUDA lets them wait for each other:
// __syncthreads, warp barriers, shuffles, votes. It finds wrong indices, missed tails, bad merges and barriers that
// not every thread reaches; it cannot find races.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct float2 { float x, y; };
struct __attribute__((aligned(16))) float4 { float x, y, z, w; };
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 256 << 10;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  dim3 index;
  bool done = false;
};

struct Warp {
  uint64_t slots[kWarp][8];
  unsigned arrived = 0, released = 0;  // a bit for every lane
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  ucontext_t scheduler;
  size_t running = 0;
  unsigned waiting = 0, alive = 0;
  uint64_t generation = 0, progress = 0;
  const std::function<void()>* body = nullptr;
  std::string failure;
};

inline thread_local Block* block = nullptr;
inline thread_local std::vector<char>* dynamic_shared = nullptr;
inline thread_local std::function<void()> at_end_of_block;  // checks that other headers add

inline void* dynamic_memory() {
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(dynamic_shared->data()) + 15) & ~uintptr_t(15));
}

inline void yield() {
  Fiber& fiber = block->fibers[block->running];
  swapcontext(&fiber.context, &block->scheduler);
}

inline void entry() {
  Block& here = *block;
  try {
    (*here.body)();
  } catch (const std::exception& error) {
    here.failure = error.what();
  }
  here.fibers[here.running].done = true;
  --here.alive;
  ++here.progress;
}

// Threads that have returned do not hold the others up, as on the device.
inline void sync_block() {
  Block& here = *block;
  ++here.waiting;
  ++here.progress;
  const uint64_t mine = here.generation;
  while (here.generation == mine) {
    if (here.waiting >= here.alive) {
      here.waiting = 0;
      ++here.generation;
      ++here.progress;
      break;
    }
    yield();
  }
}

inline unsigned lane_id() { return unsigned(block->running) % kWarp; }

// All lanes of `mask` meet here; a lane outside the mask or one that returned would hang, and is reported.
inline void sync_warp(unsigned mask) {
  Block& here = *block;
  Warp& warp = here.warps[here.running / kWarp];
  if (!(mask >> lane_id() & 1)) throw std::runtime_error("a lane takes part that its own mask leaves out");
  const unsigned me = 1u << lane_id();
  warp.arrived |= me;
  ++here.progress;
  while (!(warp.released & me)) {
    if ((warp.arrived & mask) == mask) {
      warp.arrived &= ~mask;
      warp.released |= mask;
      ++here.progress;
    } else {
      yield();
    }
  }
  warp.released &= ~me;
}

// Every lane leaves a value, and after the barrier reads one; the second barrier keeps it until all have read.
template <class T, class Pick>
T exchange(unsigned mask, const T& value, const Pick& pick) {
  static_assert(sizeof(T) <= sizeof(Warp::slots[0]), "a value of at most 64 bytes");
  Warp& warp = block->warps[block->running / kWarp];
  std::memcpy(warp.slots[lane_id()], &value, sizeof(T));
  sync_warp(mask);
  const unsigned source = pick(lane_id());
  T result;
  std::memcpy(&result, warp.slots[source], sizeof(T));
  sync_warp(mask);
  return result;
}

// What all lanes left, after one exchange: for instructions that a whole warp executes together.
template <class T>
void gather(const T& value, T (&all)[kWarp]) {
  static_assert(sizeof(T) <= sizeof(Warp::slots[0]), "a value of at most 64 bytes");
  Warp& warp = block->warps[block->running / kWarp];
  std::memcpy(warp.slots[lane_id()], &value, sizeof(T));
  sync_warp(~0u);
  for (unsigned lane = 0; lane < kWarp; ++lane) std::memcpy(&all[lane], warp.slots[lane], sizeof(T));
  sync_warp(~0u);
}

inline void run_block(const std::function<void()>& body, dim3 size) {
  Block here;
  const unsigned count = size.x * size.y * size.z;
  here.fibers.resize(count);
  here.warps.resize((count + kWarp - 1) / kWarp);
  here.body = &body;
  here.alive = count;
  block = &here;
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = here.fibers[i];
    fiber.index = dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
    fiber.stack.reset(new char[kStack]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &here.scheduler;
    makecontext(&fiber.context, entry, 0);
  }
  while (here.alive > 0) {
    const uint64_t before = here.progress;
    for (unsigned i = 0; i < count; ++i) {
      if (here.fibers[i].done) continue;
      here.running = i;
      threadIdx = here.fibers[i].index;
      swapcontext(&here.scheduler, &here.fibers[i].context);
      if (!here.failure.empty()) throw std::runtime_error(here.failure);
    }
    if (here.progress == before) throw std::runtime_error("threads wait for each other at different barriers");
  }
  block = nullptr;
}

template <class Body>
void launch(dim3 grid, dim3 size, size_t shared, const Body& body) {
  gridDim = grid;
  blockDim = size;
  const std::function<void()> function = body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        std::vector<char> memory(shared + 128, char(0x7f));  // shared memory starts as garbage
        dynamic_shared = &memory;
        blockIdx = dim3(x, y, z);
        run_block(function, size);
        if (at_end_of_block) at_end_of_block();
        for (size_t i = shared + 16; i < memory.size(); ++i)
          if (memory[i] != char(0x7f)) throw std::runtime_error("a write past the end of dynamic shared memory");
      }
}

}  // namespace emulation

inline void __syncthreads() { emulation::sync_block(); }
inline void __syncwarp(unsigned mask = ~0u) { emulation::sync_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return emulation::exchange(mask, value, [&](unsigned lane) { return (lane & ~unsigned(width - 1)) | (unsigned(source) & unsigned(width - 1)); });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32) {
  return emulation::exchange(mask, value, [&](unsigned lane) { return lane ^ unsigned(bits); });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
  return emulation::exchange(mask, value, [&](unsigned lane) { return lane % unsigned(width) >= step ? lane - step : lane; });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  return emulation::exchange(mask, value,
                             [&](unsigned lane) { return lane % unsigned(width) + step < unsigned(width) ? lane + step : lane; });
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
  bool all[emulation::kWarp];
  emulation::Warp& warp = emulation::block->warps[emulation::block->running / emulation::kWarp];
  warp.slots[emulation::lane_id()][0] = vote;
  emulation::sync_warp(mask);
  unsigned result = 0;
  for (unsigned lane = 0; lane < emulation::kWarp; ++lane) {
    all[lane] = warp.slots[lane][0] != 0;
    if ((mask >> lane & 1) && all[lane]) result |= 1u << lane;
  }
  emulation::sync_warp(mask);
  return result;
}
inline bool __any_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
inline bool __all_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) == mask; }
inline int __syncthreads_or(int vote) {
  static thread_local int any;
  __syncthreads();
  any = 0;
  __syncthreads();
  if (vote) any = 1;
  __syncthreads();
  const int result = any;
  __syncthreads();
  return result;
}
inline int __syncthreads_count(int vote) {
  static thread_local int count;
  __syncthreads();
  count = 0;
  __syncthreads();
  if (vote) ++count;
  __syncthreads();
  const int result = count;
  __syncthreads();
  return result;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline float __int_as_float(int bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline int __float_as_int(float x) { int bits; std::memcpy(&bits, &x, 4); return bits; }
inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __frsqrt_rn(float x) { return float(1 / std::sqrt(double(x))); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
template <class T> T __ldg(const T* from) { return *from; }
using std::isinf;
using std::isnan;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// One thread runs at a time, so plain steps are atomic.
template <class T, class U> T atomicAdd(T* to, U value) { const T old = *to; *to = old + T(value); return old; }
template <class T, class U> T atomicMax(T* to, U value) { const T old = *to; if (T(value) > old) *to = T(value); return old; }
template <class T, class U> T atomicMin(T* to, U value) { const T old = *to; if (T(value) < old) *to = T(value); return old; }
template <class T, class U> T atomicOr(T* to, U value) { const T old = *to; *to = old | T(value); return old; }
template <class T, class U> T atomicExch(T* to, U value) { const T old = *to; *to = T(value); return old; }
template <class T, class U, class V> T atomicCAS(T* to, U expected, V value) {
  const T old = *to;
  if (old == T(expected)) *to = T(value);
  return old;
}

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  std::memset(to, value, size);
  return cudaSuccess;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) { return cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = what == cudaDevAttrMultiProcessorCount ? 3 : what == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
struct cudaFuncAttributes { int maxThreadsPerBlock; };
template <class Kernel> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, Kernel) {
  found->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}

template <class T> T __ldcs(const T* from) { return *from; }
template <class T> void __stcs(T* to, T value) { *to = value; }

// For searches: shared memory, as on sm_80 if not told otherwise; a host's copy and wait.
enum cudaSharedAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaSharedAttr, int) {
  const char* kib = std::getenv("CFR_EMULATED_SHARED");
  *value = (kib ? std::atoi(kib) : 163) << 10;
  return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyDeviceToHost };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, size);
  return cudaSuccess;
}
// A stream that is being recorded refuses to be waited for.
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return std::getenv("CFR_EMULATED_CAPTURE") ? 900 : cudaSuccess;
}
