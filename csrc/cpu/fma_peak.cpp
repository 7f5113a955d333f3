// The roof over every product: multiply-adds that never leave the registers.
#include <chrono>

#include "parallel.h"
#include "variants.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cfr::cpu {
namespace {

constexpr int64_t kSteps = 1 << 20;
constexpr int kChains = 12;  // enough to hide the latency of two units

using Chains = float (*)(int64_t steps, float factor);

float portable(int64_t steps, float factor) {
  typedef float Four __attribute__((vector_size(16)));
  Four sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = Four{} + float(i);  // alike, they would become one chain
  for (int64_t step = 0; step < steps; ++step)
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factor + factor;
  Four total = {};
  for (const Four& chain : sum) total += chain;
  return total[0] + total[1] + total[2] + total[3];
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) float avx2(int64_t steps, float factor) {
  __m256 sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = _mm256_set1_ps(float(i));  // alike, they would become one chain
  const __m256 factors = _mm256_set1_ps(factor);
  for (int64_t step = 0; step < steps; ++step)
    for (int i = 0; i < kChains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], factors, factors);
  __m256 total = _mm256_setzero_ps();
  for (const __m256& chain : sum) total = _mm256_add_ps(total, chain);
  float lanes[8];
  _mm256_storeu_ps(lanes, total);
  return lanes[0] + lanes[7];
}
#endif

}  // namespace

double fma_peak() {
  Chains chains = portable;
  int64_t lanes = 4;
#if defined(__x86_64__)
  if (avx2_in_use()) {
    chains = avx2;
    lanes = 8;
  }
#endif
  const int64_t threads = thread_count();
  std::atomic<float> sink{0};  // the compiler must believe that somebody wants the sums
  const auto start = std::chrono::steady_clock::now();
  parallel_tasks(threads, [&](const auto& next) {
    while (next() >= 0) sink.store(chains(kSteps, 0.5f), std::memory_order_relaxed);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return 2.0 * double(threads * kSteps * kChains * lanes) / seconds.count();
}

}  // namespace cfr::cpu
