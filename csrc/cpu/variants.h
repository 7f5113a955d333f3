// One body, compiled once for every processor and once for AVX2.
//
// A kernel whose body is plain C++ or GCC's vector types is written as a CFR_INLINE function and called from a
// portable function and from one marked CFR_AVX2. Without FMA: both variants round alike.
#pragma once

#include <cstring>

#include "gemm.h"

#define CFR_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define CFR_AVX2 __attribute__((target("avx2")))
#else
#define CFR_AVX2
#endif

namespace cfr::cpu {

inline bool avx2_in_use() { return std::strcmp(kernels().name, "avx2") == 0; }

}  // namespace cfr::cpu
