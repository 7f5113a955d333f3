// Twins of the instructions in csrc/cuda/hopper.h, by the rules of the PTX ISA.
//
// What is asynchronous on the device happens as late as the rules allow: a bulk copy fills its target with NaN at once
// and delivers when somebody waits for its barrier; products are formed when somebody waits for their group. So whoever
// reads too early, or fills what is still being read, gets wrong numbers. Descriptors of operands are decoded.
#pragma once

#include <deque>
#include <map>

namespace emulation {

constexpr uint32_t kDynamicStart = 0x410;  // shared address of dynamic memory: static variables come first

inline void demand(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

inline char* shared_pointer(uint32_t address) { return static_cast<char*>(dynamic_memory()) + (address - kDynamicStart); }

// Phase and counts of a barrier, in its 64 bits.
struct Barrier {
  uint16_t phase, arrivals, pending, valid;
};
static_assert(sizeof(Barrier) == 8, "as an mbarrier");

struct Copy {
  void* to;
  const void* from;
  unsigned bytes;
};
struct Waiting {
  int64_t bytes = 0;  // expected, less those that have come
  std::deque<Copy> copies;
};
inline thread_local std::map<void*, Waiting> under_way;  // of the barriers of a block

struct Product {
  float (*sum)[4];
  uint64_t a, b;
  float (*value)(uint16_t);  // of an operand's bits
};
struct Products {
  std::vector<Product> open;                // not in a group yet
  std::deque<std::vector<Product>> groups;  // not waited for yet
};
inline thread_local std::map<unsigned, Products> products;  // of the threads of a block

// At the end of a block nothing may be under way.
inline void finish() {
  const auto copies = std::move(under_way);
  const auto groups = std::move(products);
  under_way.clear();
  products.clear();
  for (const auto& [barrier, waiting] : copies)
    demand(waiting.copies.empty() && waiting.bytes == 0, "a block ends with copies under way");
  for (const auto& [thread, own] : groups)
    demand(own.open.empty() && own.groups.empty(), "a block ends with products under way");
}

inline void complete(Barrier& barrier, const Waiting& waiting) {
  if (barrier.pending > 0 || waiting.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.arrivals;
  ++block->progress;
}

// The number at bytes `at` of a row of an operand, found as the hardware finds it: swizzling permutes address bits.
inline float element(const Product& product, uint64_t descriptor, unsigned row, unsigned at) {
  demand(descriptor >> 62 == 1, "only the 128-byte swizzle is emulated");
  demand((descriptor >> 49 & 7) == 0, "a base offset other than 0");
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  const uint32_t linear = start + row / 8 * stride + row % 8 * 128 + at;
  uint16_t bits;
  std::memcpy(&bits, shared_pointer(linear ^ (linear >> 3 & 0x70)), 2);
  return product.value(bits);
}

inline void multiply(const Product& product) {
  const unsigned thread = threadIdx.x % 128;
  float a[2][16], b[16];
  for (unsigned half = 0; half < 2; ++half)
    for (unsigned k = 0; k < 16; ++k)
      a[half][k] = element(product, product.a, thread / 32 * 16 + thread % 32 / 4 + half * 8, 2 * k);
  for (unsigned j = 0; j < 32; ++j)
    for (unsigned e = 0; e < 2; ++e) {
      for (unsigned k = 0; k < 16; ++k) b[k] = element(product, product.b, 8 * j + 2 * (thread % 4) + e, 2 * k);
      for (unsigned half = 0; half < 2; ++half)
        for (unsigned k = 0; k < 16; ++k) product.sum[j][2 * half + e] += a[half][k] * b[k];
    }
}

}  // namespace emulation

namespace cfr::cuda {

inline uint32_t shared_address(const void* at) {
  const ptrdiff_t offset = static_cast<const char*>(at) - static_cast<char*>(emulation::dynamic_memory());
  emulation::demand(offset >= 0 && offset < (227 << 10), "an address outside dynamic shared memory");
  return emulation::kDynamicStart + uint32_t(offset);
}

inline void start_barrier(uint64_t* barrier, unsigned arrivals) {
  emulation::demand(shared_address(barrier) % 8 == 0, "a barrier that is not aligned");
  emulation::Barrier state{0, uint16_t(arrivals), uint16_t(arrivals), 1};
  emulation::demand(emulation::under_way.emplace(barrier, emulation::Waiting{}).second, "a barrier started twice");
  std::memcpy(barrier, &state, 8);
  emulation::at_end_of_block = emulation::finish;
}
inline void announce_barriers() {}

inline void arrive_expecting(uint64_t* barrier, unsigned bytes) {
  auto& state = reinterpret_cast<emulation::Barrier&>(*barrier);
  auto& waiting = emulation::under_way.at(barrier);
  emulation::demand(state.pending > 0, "more arrivals than a barrier has");
  waiting.bytes += bytes;
  --state.pending;
  emulation::complete(state, waiting);
}

inline void wait_barrier(uint64_t* barrier, unsigned parity) {
  auto& state = reinterpret_cast<emulation::Barrier&>(*barrier);
  auto& waiting = emulation::under_way.at(barrier);
  while (state.phase == parity) {
    if (waiting.copies.empty()) {
      emulation::yield();
      continue;
    }
    const emulation::Copy copy = waiting.copies.front();
    waiting.copies.pop_front();
    std::memcpy(copy.to, copy.from, copy.bytes);
    waiting.bytes -= copy.bytes;
    emulation::complete(state, waiting);
  }
}

inline void bulk_copy(void* to, const void* from, unsigned bytes, uint64_t* barrier) {
  const bool aligned = shared_address(to) % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0 && bytes % 16 == 0;
  emulation::demand(aligned, "a bulk copy that is not aligned");
  std::memset(to, 0xff, bytes);
  emulation::under_way.at(barrier).copies.push_back({to, from, bytes});
}

inline void order_products() {}
template <class Element>
void multiply_group(GroupSums& sum, uint64_t a, uint64_t b) {
  emulation::products[threadIdx.x].open.push_back({sum, a, b, Element::value});
}
inline void commit_products() {
  auto& own = emulation::products[threadIdx.x];
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}
template <int kPending>
void wait_products() {
  auto& groups = emulation::products[threadIdx.x].groups;
  while (groups.size() > kPending) {
    for (const auto& product : groups.front()) emulation::multiply(product);
    groups.pop_front();
  }
}
inline void settle_sums(GroupSums&) {}

}  // namespace cfr::cuda
