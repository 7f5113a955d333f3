// Products of packed row blocks, small enough to stay in cache while their consumer reads them.
//
// Every element of a product is one chain of multiply-adds per slice of the depth and a sum of those, in the same
// order wherever its row and column lie: equal rows give equal values to the last bit, whatever the tiling or the
// number of threads.
#pragma once

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../kernels.h"

namespace cfr::cpu {

// The innermost loops for one instruction set.
struct Kernels {
  const char* name;
  int64_t left, right;  // rows of the two operands that `multiply` takes at once
  // c[left, right] (row stride `stride`) = or += a · bᵀ of panels a[depth, left], b[depth, right].
  void (*multiply)(const float* a, const float* b, int64_t depth, float* c, int64_t stride, bool add);
  // First position in [begin, end) whose value is not <= bound (NaN included), else `end`; may read 8 further.
  int64_t (*first_above)(const float* values, int64_t begin, int64_t end, float bound);
  // ‖a / max(‖a‖, 1e-12) − b / max(‖b‖, 1e-12)‖ of two vectors.
  float (*discrepancy)(const float* a, const float* b, int64_t size);
};

constexpr int64_t kOverread = 8;  // floats that first_above may read past its end

const Kernels& kernels();                     // the variant in use: the best that this processor has, at first
std::vector<std::string> kernel_names();      // all variants that this processor can run, the best first
bool use_kernels(const std::string& name);    // false when there is no such variant

// Uninitialised numbers, aligned for vector loads; not one more than asked for, so that sanitizers see every overrun.
template <class Number>
class Aligned {
 public:
  explicit Aligned(int64_t size)
      : data_(static_cast<Number*>(::operator new(size * sizeof(Number), kAlignment))) {}
  Number* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(Number* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<Number, Free> data_;
};

using Scratch = Aligned<float>;

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Depth of one slice: panels of that depth stay in the first-level cache.
int64_t slice_depth(int64_t cols);

// 1 / max(‖row‖, 1e-12) of rows [first, first + count), as torch.nn.functional.normalize divides.
void inverse_norms(const Rows& matrix, int64_t first, int64_t count, float* out);

// Packs rows [first, first + count), each times its scale, as [slice][panel][depth][width]; a last panel that
// is not full is padded with zero rows. `out` holds round_up(count, width) · cols floats.
void pack(const Rows& matrix, const float* scale, int64_t first, int64_t count, int64_t width, float* out);

// The same of the rows list[0], …, list[count − 1]; `scale` has an entry for every row of the matrix.
void pack_listed(const Rows& matrix, const float* scale, const int64_t* list, int64_t count, int64_t width,
                 float* out);

// c[a_rows, b_rows] = A · Bᵀ of two packed blocks; both row counts are multiples of the panel widths.
void multiply(const Kernels& kernels, const float* a, int64_t a_rows, const float* b, int64_t b_rows,
              int64_t cols, float* c);

}  // namespace cfr::cpu
