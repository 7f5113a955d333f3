// Every kernel as it is called from ops.cpp: raw pointers, sizes and a stream, no tensor type.
#pragma once

#include <cstdint>

namespace cfr {

// A float matrix whose rows are contiguous; `stride` floats lie between the starts of two rows.
struct Rows {
  const float* data;
  int64_t rows;
  int64_t cols;
  int64_t stride;
};

// Pixel p is Σ_j weight[j] · token[source[j]] for j from offset[p] to offset[p + 1] − 1.
struct Interpolation {
  const int64_t* offset;
  const int64_t* source;
  const float* weight;
  int64_t pixels;
};

constexpr int64_t kMaxTopk = 32;  // one warp holds a row's list; beyond it sorting is the better tool

namespace cpu {
// similarity [N, k] descending and index [N, k]; ties go to the lower index. 1 <= k <= keys.rows.
void topk_cosine(const Rows& query, const Rows& keys, int64_t k, float* similarity, int64_t* index);

// reliable [N]: whether some bank row lies nearer than `threshold` in cosine distance, or is not a number.
// Rows where `valid` (null: all are) is false are left alone.
void confidence_filter(const Rows& query, const Rows& bank, double threshold, const bool* valid, bool* reliable);

// map [height, width]: the product of both modalities' discrepancies at the valid pixels, zero elsewhere, then a
// 5×5 mean. Row r of the matrices belongs to the r-th valid pixel; `replaced` names the rows of rgb_predicted whose
// place the rows of `replacement` take, the last one where they repeat.
struct Modality {
  Rows predicted, observed_tokens;
  Interpolation observed;
};
void replace_and_score(const Modality& rgb, const Modality& xyz, const Rows& replacement, const int64_t* replaced,
                       const bool* valid, int64_t height, int64_t width, float* map);

// index [count]; `initial` [points.rows] or null. count <= points.rows.
void farthest_point_sample(const Rows& points, const float* initial, int64_t count, int64_t* index);

// Floating-point operations a second that multiply-adds in registers reach on all threads, over some milliseconds.
double fma_peak();

// out [pixels, tokens.cols].
void interpolate_tokens(const Rows& tokens, const Interpolation& entries, float* out);

// out [pixels, weight.rows] = W3 (gelu(g + b_g) ⊙ (v + b_v)) + b3 with [g, v] interpolated from projected [T, 2H] and
// weight [D, H].
void geglu_map(const Rows& projected, const Interpolation& entries, const float* bias, const Rows& weight,
               const float* out_bias, float* out);

// index [pixels, k]: the keys of highest cosine with each pixel's interpolated tokens, descending. 1 <= k <= keys.rows.
void topk_interpolated(const Rows& tokens, const Interpolation& entries, const Rows& keys, int64_t k,
                       int64_t* index);

// Queries and the k rows of a bank that each attends over: index [query.rows, k], rows of keys and values.
struct Lists {
  Rows query, keys, values;
  const int64_t* index;
  int64_t k;
};
// out [query.rows, values.cols] = softmax(scale · query · keysᵀ) · values; zeros where k is 0.
void topk_attention(const Lists& attention, float scale, float* out);
// The gradients of the sum of grad · out, each of the size of what it belongs to.
void topk_attention_backward(const Lists& attention, float scale, const Rows& grad, float* grad_query,
                             float* grad_keys, float* grad_values);

// out [query.rows, values.cols], over all rows of keys and values, of which there is one at least.
void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, float* out);

// index [points.rows, 3] and weight of the same shape; three columns each, centers.rows >= 3.
void three_nn(const Rows& points, const Rows& centers, int64_t* index, float* weight);

// index [centers.rows, k]; three columns each, 1 <= k <= points.rows < 2^32.
void knn(const Rows& points, const Rows& centers, int64_t k, int64_t* index);
}  // namespace cpu

namespace cuda {
// The same on a device. `inverse_norm` is scratch for query.rows + keys.rows floats, `stream` a cudaStream_t.
void topk_cosine(const Rows& query, const Rows& keys, int64_t k, float* inverse_norm, float* similarity,
                 int64_t* index, int device, void* stream);

void topk_attention(const cpu::Lists& attention, float scale, float* out, int device, void* stream);

// `scratch` holds as many floats as bank_attention_scratch says for the numbers of queries, keys and value columns.
int64_t bank_attention_scratch(int64_t queries, int64_t keys, int64_t cols);
void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, float* scratch,
                    float* out, int device, void* stream);
}  // namespace cuda

}  // namespace cfr
