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

// Rows that are asked for: the first *count (null: all) of `size`, the i-th being rows[i] (null: i). What belongs to
// those behind is zero. On a device the host does not know what `rows` and `count` hold.
struct Listed {
  const int64_t* rows;
  const int64_t* count;
  int64_t size;
};

// Predicted features and the tokens that the observed ones are interpolated from.
struct Modality {
  Rows predicted, observed_tokens;
  Interpolation observed;
};

// Of the products that choose candidates on a device; what is decided does not depend on it.
enum class Precision { bf16, tf32 };

constexpr int64_t kMaxTopk = 32;  // one warp holds a row's list; beyond it sorting is the better tool
constexpr int64_t kMaxNeighbours = 3072;  // of knn on a device: its list must fit in a block's shared memory

namespace cpu {
// similarity [N, k] descending and index [N, k]; ties go to the lower index. 1 <= k <= keys.rows.
void topk_cosine(const Rows& query, const Rows& keys, int64_t k, float* similarity, int64_t* index);

// reliable [N]: whether some bank row lies nearer than `threshold` in cosine distance, or is not a number.
// Rows where `valid` (null: all are) is false are left alone.
void confidence_filter(const Rows& query, const Rows& bank, double threshold, const bool* valid, bool* reliable);

// Of every image its mask of valid pixels, [images, height, width].
struct Masks {
  const bool* valid;
  int64_t images, height, width;
  int64_t pixels() const { return images * height * width; }
};

// map [images, height, width]: the product of both modalities' discrepancies at the valid pixels, zero elsewhere,
// then a 5×5 mean of each image. Row r of the matrices belongs to the r-th valid pixel; rows behind the last are left
// alone. `replaced` names the rows of rgb_predicted whose place the rows of `replacement` take, the last one where
// they repeat.
void replace_and_score(const Modality& rgb, const Modality& xyz, const Rows& replacement, const int64_t* replaced,
                       const Masks& masks, float* map);

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
// The same on a device, in `scratch` of as many bytes as topk_cosine_scratch says; `stream` is a cudaStream_t.
int64_t topk_cosine_scratch(const Rows& query, const Rows& keys, int64_t k, Precision precision, int device);
void topk_cosine(const Rows& query, const Rows& keys, int64_t k, Precision precision, void* scratch,
                 float* similarity, int64_t* index, int device, void* stream);

// Writes the rows without a near one to index [query.rows], ascending, zeros behind them, and their number to `count`.
int64_t confidence_filter_scratch(const Rows& query, const Rows& bank, int device);
void confidence_filter(const Rows& query, const Rows& bank, double threshold, const bool* valid, void* scratch,
                       int64_t* index, int64_t* count, int device, void* stream);

// A number that lies on the device: waits for the stream.
int64_t read_number(const int64_t* number, int device, void* stream);

// `anchor` is scratch for points.rows floats; 1 <= count <= points.rows < 2^32.
void farthest_point_sample(const Rows& points, const float* initial, int64_t count, float* anchor, int64_t* index,
                           int device, void* stream);

// points.rows >= 1, 3 <= centers.rows < 2^32.
void three_nn(const Rows& points, const Rows& centers, int64_t* index, float* weight, int device, void* stream);

// 1 <= k <= kMaxNeighbours, centers.rows >= 1.
void knn(const Rows& points, const Rows& centers, int64_t k, int64_t* index, int device, void* stream);

// out [list.size, tokens.cols].
void interpolate_tokens(const Rows& tokens, const Interpolation& entries, const Listed& list, float* out, int device,
                        void* stream);

// Of the first *count pixels (null: all); the rows behind are zero. `scratch`: bytes as geglu_map_scratch says.
int64_t geglu_map_scratch(int64_t pixels, const Rows& weight, int device);
void geglu_map(const Rows& projected, const Interpolation& entries, const int64_t* count, const float* bias,
               const Rows& weight, const float* out_bias, void* scratch, float* out, int device, void* stream);

// index [list.size, k]. `scratch`: bytes as topk_interpolated_scratch says.
int64_t topk_interpolated_scratch(const Rows& tokens, const Listed& list, const Rows& keys, int64_t k, int device);
void topk_interpolated(const Rows& tokens, const Interpolation& entries, const Listed& list, const Rows& keys,
                       int64_t k, void* scratch, int64_t* index, int device, void* stream);

// `scratch` holds replace_and_score_scratch() numbers, `product` is of the map's size; the first *count replacements
// (null: all) are real. Values are not checked: numbers in `replaced` that are no rows are passed over, and pixels
// without a row come out as NaN.
int64_t replace_and_score_scratch(int64_t rows, int64_t pixels);
void replace_and_score(const Modality& rgb, const Modality& xyz, const Rows& replacement, const int64_t* replaced,
                       const int64_t* count, const cpu::Masks& masks, int64_t* scratch, float* product, float* map,
                       int device, void* stream);

// Of the first *count queries (null: all); the rows behind are zero.
void topk_attention(const cpu::Lists& attention, float scale, const int64_t* count, float* out, int device,
                    void* stream);

// `scratch`: bytes as bank_attention_scratch says.
int64_t bank_attention_scratch(const Rows& query, const Rows& keys, const Rows& values, int device);
void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, void* scratch, float* out,
                    int device, void* stream);
}  // namespace cuda

}  // namespace cfr
