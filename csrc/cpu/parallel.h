// Parallel loops on torch's own thread pool: torch.set_num_threads holds, and nothing links OpenMP.
#pragma once

#include "../torch_abi.h"  // first

#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace cfr::cpu {

inline int64_t thread_count() {
  uint32_t count = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&count));
  return count;
}

// Runs `body(next)` once on every thread; `next()` hands out the tasks 0 … count−1 one by one, then −1.
// Threads that finish early take more, and `body` owns its scratch across tasks. No result may depend on
// which thread does a task.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  std::atomic<int64_t> counter{0};
  const auto next = [&]() -> int64_t {
    const int64_t task = counter.fetch_add(1, std::memory_order_relaxed);
    return task < count ? task : -1;
  };
  auto run = [&] { body(next); };
  const auto callback = [](int64_t begin, int64_t end, void* context) {
    for (; begin < end; ++begin) (*static_cast<decltype(run)*>(context))();
  };
  const int64_t threads = std::min(count, thread_count());
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, threads, 1, callback, &run));
}

}  // namespace cfr::cpu
