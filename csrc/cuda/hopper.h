// Instructions that compute capability 9.0 alone has (sm_90a): barriers that count bytes, bulk copies to shared memory,
// and products by a group of four warps, whose operands lie there. Tests have twins of them (cuda_hopper.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "mma.h"

// Where there is code for them; elsewhere kernels that need them are empty.
#if defined(CFR_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CFR_HOPPER 1
#else
#define CFR_HOPPER 0
#endif

namespace cfr::cuda {

// Operands lie in atoms of 8 rows of 128 bytes, at multiples of an atom; in row r, the chunk c of 16 bytes lies at
// c ^ r % 8. (PTX ISA, matrix descriptors of wgmma: K-major, 128-byte swizzle.)
constexpr int kAtomBytes = 1024;

// Describes the 16 columns at `address` of as many such rows as an operand has: in units of 16 bytes the start (bits 0
// to 13), the leading offset (from 16, unused here), the distance of atoms (from 32); the swizzle (from 62).
__host__ __device__ constexpr uint64_t operand_at(uint32_t address) {
  return (address & 0x3ffffu) >> 4 | uint64_t(1) << 16 | uint64_t(kAtomBytes >> 4) << 32 | uint64_t(1) << 62;
}

// Of products of 64 rows with 256: thread t of a group holds in [j][e] row t / 32 · 16 + t % 32 / 4 + e / 2 · 8 and
// column 8 j + 2 (t % 4) + e % 2.
using GroupSums = float[32][4];

}  // namespace cfr::cuda

#ifdef CFR_EMULATION
#include <cuda_hopper.h>
#elif CFR_HOPPER

namespace cfr::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// A barrier's phase ends when `arrivals` threads have arrived and all bytes that they expect are there.
__device__ __forceinline__ void start_barrier(uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// By the thread that has started barriers, before the others and the copies use them.
__device__ __forceinline__ void announce_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Until the phase of this parity has ended; the first one has parity 0.
__device__ __forceinline__ void wait_barrier(uint64_t* barrier, unsigned parity) {
  unsigned done;
  do {
    asm volatile(
        "{\n\t.reg .pred done;\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, done;\n\t}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!done);
}

// Bytes and both addresses are multiples of 16; `barrier` counts the bytes as they arrive.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, unsigned bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

// What a group did to its sums itself comes before the products that follow.
__device__ __forceinline__ void order_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products; at most kPending of the latest are under way after the wait.
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// After the last wait: the compiler shall not read the sums before.
__device__ __forceinline__ void settle_sums(GroupSums& sum) {
  CFR_UNROLL
  for (int j = 0; j < 32; ++j) {
    CFR_UNROLL
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(sum[j][e])::"memory");
  }
}

#define CFR_SUMS(j) "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])
#define CFR_SUMS4(j) CFR_SUMS(j), CFR_SUMS(j + 1), CFR_SUMS(j + 2), CFR_SUMS(j + 3)
#define CFR_SUMS16(j) CFR_SUMS4(j), CFR_SUMS4(j + 4), CFR_SUMS4(j + 8), CFR_SUMS4(j + 12)

#define CFR_MULTIPLY_GROUP(type)                                                                      \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {"                      \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                             \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                   \
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                   \
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                   \
               "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                   \
               "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                   \
               "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "       \
               "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"     \
               "}, %128, %129, 1, 1, 1, 0, 0;"                                                                      \
               : CFR_SUMS16(0), CFR_SUMS16(16)                                                              \
               : "l"(a), "l"(b))

// sum [64, 256] += a [64, 16] · b [256, 16]ᵀ of Bfloat16 or Float16, by a group; under way until waited for.
template <class Element>
__device__ __forceinline__ void multiply_group(GroupSums& sum, uint64_t a, uint64_t b) {
  if constexpr (std::is_same_v<Element, Float16>)
    CFR_MULTIPLY_GROUP("f16");
  else
    CFR_MULTIPLY_GROUP("bf16");
}

}  // namespace cfr::cuda

#endif
