// Copies from global to shared memory that run beside the arithmetic: 16 bytes each, waited for in groups.
#pragma once

#include "launch.h"

namespace cfr::cuda {

#ifdef CFR_EMULATION

// The twin copies at once: a kernel that reads too early is caught on a device only.
inline void copy16(void* to, const void* from) { std::memcpy(to, from, 16); }
inline void commit_copies() {}
template <int kPending>
void wait_copies() {}

#else

// Both addresses are multiples of 16. Goes past the first-level cache: a tile is read once by its block.
__device__ __forceinline__ void copy16(void* to, const void* from) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

// Closes a group of this thread's copies; groups may be empty.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most kPending of this thread's latest groups are under way; others see the data after a barrier.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace cfr::cuda
