// Scratch memory, handed out piece by piece.
#pragma once

#include <cstdint>

namespace cfr::cuda {

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Pieces of 256-byte alignment; from a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<unsigned char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    unsigned char* at = base_ ? base_ + used_ : nullptr;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 256);
    return reinterpret_cast<T*>(at);
  }
  int64_t used() const { return used_; }

 private:
  unsigned char* base_;
  int64_t used_ = 0;
};

}  // namespace cfr::cuda
