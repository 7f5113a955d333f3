// Tensor-core instructions that a whole warp executes together (sm_80 and later), each with a scalar twin.
#pragma once

#include <cstdint>

#include "launch.h"

#ifdef CFR_EMULATION
#define CFR_UNROLL
#define CFR_OPAQUE(value)
#else
#define CFR_UNROLL _Pragma("unroll")
#define CFR_OPAQUE(value) asm volatile("" : "+r"(value))
#endif

namespace cfr::cuda {

// The same number, of which the compiler does not know it: what follows from it in a loop is computed each time, not
// kept in registers over the loop.
__device__ __forceinline__ int anew(int value) {
  CFR_OPAQUE(value);
  return value;
}

// What the products are made of. Each has its bits, rounded to nearest even (every NaN becomes the one NaN), their
// value, and multiply_add by a whole warp: sum [16, 8] += a [16, 32 bytes] · b [32 bytes, 8], where lane l holds of
// `sum` the columns 2 (l % 4) and the next, in row l / 4 (sum[0], sum[1]) and in row l / 4 + 8 (sum[2], sum[3]).
struct Bfloat16 {
  using Bits = uint16_t;
  __device__ static Bits round(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<Bits>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
  __device__ static float value(Bits bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
  __device__ static void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
};

// Half precision: eleven bits as TF32 has them, for magnitudes below 65,520.
struct Float16 {
  using Bits = uint16_t;
  __device__ static Bits round(float value);
  __device__ static float value(Bits bits);
  __device__ static void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
};

// A float32 as the sum of two Float16 (split_product.h).
struct SplitFloat {
  using Bits = uint16_t;
};

// TensorFloat-32: a float with ten bits of fraction; the tensor cores do not look at the others.
struct Tf32 {
  using Bits = uint32_t;
  __device__ static Bits round(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffe000u;
    return (bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu;
  }
  __device__ static float value(Bits bits) { return __uint_as_float(bits); }
  __device__ static void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
};

#ifdef CFR_EMULATION

inline void load_matrices(uint32_t (&out)[4], const void* row) {
  const void* rows[emulation::kWarp];
  emulation::gather(row, rows);
  const unsigned lane = emulation::lane_id();
  for (unsigned matrix = 0; matrix < 4; ++matrix)
    std::memcpy(&out[matrix], static_cast<const char*>(rows[8 * matrix + lane / 4]) + 4 * (lane % 4), 4);
}

// One warp's product; `part` takes one of kParts elements from a register.
template <int kParts, class Part>
void emulate_multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const Part& part) {
  struct Operands {
    uint32_t a[4], b[2];
  } mine{{a[0], a[1], a[2], a[3]}, {b0, b1}}, all[emulation::kWarp];
  emulation::gather(mine, all);
  const unsigned lane = emulation::lane_id();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, upper = i / 2, col = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 8 * kParts; ++k) {
      const unsigned half = k / (4 * kParts), owner = k % (4 * kParts) / kParts, which = k % kParts;
      sum[i] += part(all[row * 4 + owner].a[upper + 2 * half], which) * part(all[col * 4 + owner].b[half], which);
    }
  }
}

inline void Bfloat16::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulate_multiply_add<2>(sum, a, b0, b1,
                          [](uint32_t pair, unsigned which) { return value(Bits(pair >> 16 * which)); });
}
inline Float16::Bits Float16::round(float value) {
  const _Float16 half = static_cast<_Float16>(value);
  Bits bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
inline float Float16::value(Bits bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}
inline void Float16::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulate_multiply_add<2>(sum, a, b0, b1,
                          [](uint32_t pair, unsigned which) { return value(Bits(pair >> 16 * which)); });
}
inline void Tf32::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulate_multiply_add<1>(sum, a, b0, b1, [](uint32_t bits, unsigned) { return value(bits & ~0x1fffu); });
}

#else

// Four matrices of 8 rows of 16 bytes from shared memory: lane l names row l % 8 of matrix l / 8 (aligned), and
// receives of each matrix the four bytes from 4 (l % 4) on in row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void Bfloat16::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                                       uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ Float16::Bits Float16::round(float value) {
  Bits bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

__device__ __forceinline__ float Float16::value(Bits bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ void Float16::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                                      uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void Tf32::multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

}  // namespace cfr::cuda
