// The ops on pixels in token space: argument checks and the kernels behind them. ops.cpp registers them.
#pragma once

#include <algorithm>
#include <optional>

#include "listed_rows.h"

namespace cfr {
namespace {

Tensor interpolate_tokens(const Tensor& tokens, const Tensor& offset, const Tensor& source, const Tensor& weight,
                          const std::optional<Tensor>& rows, const std::optional<Tensor>& count) {
  const char* op = "interpolate_tokens";
  check_float_matrix(op, "tokens", tokens);
  const InterpolationTensors entries(op, tokens, offset, source, weight);
  entries.check_values(op, tokens);
  const ListedTensors list(op, entries.view().pixels, rows, count, tokens);
  const ListedPixels listed(op, entries.view(), list.view);
  const Tensor t = with_contiguous_rows(tokens);
  const Tensor out = empty_like_device(tokens, list.view.size, tokens.size(1), ScalarType::Float);
  cpu::interpolate_tokens(rows_of(t), listed.view(), out.mutable_data_ptr<float>());
  clear_rows<float>(out, listed.view().pixels);
  return out;
}

void check_geglu_map(const Tensor& projected, const Tensor& bias, const Tensor& out_weight, const Tensor& out_bias) {
  const char* op = "geglu_map";
  check_float_matrix(op, "projected", projected);
  check_float_matrix(op, "out_weight", out_weight);
  CFR_CHECK(projected.size(1) == 2 * out_weight.size(1), op, "projected", "twice the columns of out_weight",
            shape_of(projected));
  check_vector(op, "bias", bias, ScalarType::Float, projected.size(1));
  check_vector(op, "out_bias", out_bias, ScalarType::Float, out_weight.size(0));
  for (const Tensor* item : {&bias, &out_weight, &out_bias}) check_same_device(op, "weights", *item, projected);
}

Tensor geglu_map(const Tensor& projected, const Tensor& offset, const Tensor& source, const Tensor& weight,
                 const Tensor& bias, const Tensor& out_weight, const Tensor& out_bias,
                 const std::optional<Tensor>& count) {
  check_geglu_map(projected, bias, out_weight, out_bias);
  const InterpolationTensors entries("geglu_map", projected, offset, source, weight);
  entries.check_values("geglu_map", projected);
  const ListedTensors list("geglu_map", entries.view().pixels, std::nullopt, count, projected);
  const ListedPixels listed("geglu_map", entries.view(), list.view);
  const Tensor p = with_contiguous_rows(projected), w = with_contiguous_rows(out_weight);
  const Tensor b = torch::stable::contiguous(bias), c = torch::stable::contiguous(out_bias);
  const Tensor out =
      empty_like_device(projected, entries.view().pixels, out_weight.size(0), ScalarType::Float);
  cpu::geglu_map(rows_of(p), listed.view(), b.const_data_ptr<float>(), rows_of(w), c.const_data_ptr<float>(),
                 out.mutable_data_ptr<float>());
  clear_rows<float>(out, listed.view().pixels);
  return out;
}

void check_topk_interpolated(const Tensor& tokens, const Tensor& keys, int64_t k) {
  const char* op = "topk_interpolated";
  check_float_matrix(op, "tokens", tokens);
  check_float_matrix(op, "keys", keys);
  check_same_device(op, "keys", keys, tokens);
  CFR_CHECK(keys.size(1) == tokens.size(1), op, "keys", "as many columns as tokens", shape_of(keys));
  CFR_CHECK(k >= 0 && k <= keys.size(0), op, "k", "0 to the number of keys", k);
  CFR_CHECK(k <= kMaxTopk, op, "k", "at most 32", k);
}

Tensor topk_interpolated(const Tensor& tokens, const Tensor& offset, const Tensor& source, const Tensor& weight,
                         const Tensor& keys, int64_t k, const std::optional<Tensor>& rows,
                         const std::optional<Tensor>& count) {
  check_topk_interpolated(tokens, keys, k);
  const InterpolationTensors entries("topk_interpolated", tokens, offset, source, weight);
  entries.check_values("topk_interpolated", tokens);
  const ListedTensors list("topk_interpolated", entries.view().pixels, rows, count, tokens);
  const ListedPixels listed("topk_interpolated", entries.view(), list.view);
  const Tensor found = empty_like_device(tokens, list.view.size, k, ScalarType::Long);
  if (found.numel() > 0) {
    const Tensor t = with_contiguous_rows(tokens), b = with_contiguous_rows(keys);
    cpu::topk_interpolated(rows_of(t), listed.view(), rows_of(b), k, found.mutable_data_ptr<int64_t>());
    clear_rows<int64_t>(found, listed.view().pixels);
  }
  return found;
}

void check_replace_and_score(const Tensor& rgb_predicted, const Tensor& rgb_tokens, const Tensor& xyz_predicted,
                             const Tensor& xyz_tokens, const Tensor& replacement, const Tensor& replaced,
                             const Tensor& valid) {
  const char* op = "replace_and_score";
  const auto check = [&](const char* name, const Tensor& tensor, int64_t cols) {
    check_float_matrix(op, name, tensor);
    check_same_device(op, name, tensor, rgb_predicted);
    CFR_CHECK(tensor.size(1) == cols, op, name, "as many columns as its counterpart", shape_of(tensor));
  };
  check_float_matrix(op, "rgb_predicted", rgb_predicted);
  check_float_matrix(op, "xyz_predicted", xyz_predicted);
  const int64_t rows = rgb_predicted.size(0);
  check("rgb_tokens", rgb_tokens, rgb_predicted.size(1));
  check("xyz_predicted", xyz_predicted, xyz_predicted.size(1));
  check("xyz_tokens", xyz_tokens, xyz_predicted.size(1));
  check("replacement", replacement, rgb_predicted.size(1));
  CFR_CHECK(xyz_predicted.size(0) == rows, op, "xyz_predicted", "as many rows as rgb_predicted",
            shape_of(xyz_predicted));
  check_mask(op, "valid", valid);
  check_same_device(op, "valid", valid, rgb_predicted);
  CFR_CHECK(valid.dim() == 2 || valid.dim() == 3, op, "valid", "a matrix, or one for every image", shape_of(valid));
  check_vector(op, "replaced", replaced, ScalarType::Long, replacement.size(0));
  check_same_device(op, "replaced", replaced, rgb_predicted);
}

// One modality's tensors as a kernel takes them, kept alive.
struct ModalityTensors {
  Tensor predicted, tokens;
  InterpolationTensors entries;

  ModalityTensors(const Tensor& predictions, const Tensor& all_tokens, const Tensor& offset,
                  const Tensor& source, const Tensor& weight)
      : predicted(with_contiguous_rows(predictions)),
        tokens(with_contiguous_rows(all_tokens)),
        entries("replace_and_score", tokens, offset, source, weight) {}

  void check_pixels(const char* op, const char* offset) const {
    const int64_t pixels = entries.view().pixels;
    CFR_CHECK(pixels == predicted.size(0), op, offset, "one pixel a predicted row", pixels);
  }
  Modality view() const { return {rows_of(predicted), rows_of(tokens), entries.view()}; }
};

cpu::Masks masks_of(const Tensor& valid) {
  const bool many = valid.dim() == 3;
  return {valid.const_data_ptr<bool>(), many ? valid.size(0) : 1, valid.size(many), valid.size(many + 1)};
}

Tensor map_like(const Tensor& valid) {
  return torch::stable::empty(valid.sizes(), ScalarType::Float, std::nullopt, valid.device());
}

Tensor replace_and_score(const Tensor& rgb_predicted, const Tensor& rgb_tokens, const Tensor& rgb_offset,
                         const Tensor& rgb_source, const Tensor& rgb_weight, const Tensor& xyz_predicted,
                         const Tensor& xyz_tokens, const Tensor& xyz_offset, const Tensor& xyz_source,
                         const Tensor& xyz_weight, const Tensor& replacement, const Tensor& replaced,
                         const Tensor& valid, const std::optional<Tensor>& count) {
  const char* op = "replace_and_score";
  check_replace_and_score(rgb_predicted, rgb_tokens, xyz_predicted, xyz_tokens, replacement, replaced, valid);
  const ModalityTensors rgb(rgb_predicted, rgb_tokens, rgb_offset, rgb_source, rgb_weight);
  const ModalityTensors xyz(xyz_predicted, xyz_tokens, xyz_offset, xyz_source, xyz_weight);
  rgb.entries.check_values(op, rgb_tokens);
  xyz.entries.check_values(op, xyz_tokens);
  rgb.check_pixels(op, "rgb_offset");
  xyz.check_pixels(op, "xyz_offset");
  const int64_t rows = rgb_predicted.size(0);
  const Tensor mask = torch::stable::contiguous(valid), list = torch::stable::contiguous(replaced);
  const cpu::Masks masks = masks_of(mask);
  const int64_t* numbers = list.const_data_ptr<int64_t>();
  const int64_t marked = std::count(masks.valid, masks.valid + masks.pixels(), true);
  const char* wanted = count ? "at most as many True pixels as rows" : "as many True pixels as rows";
  CFR_CHECK(count ? marked <= rows : marked == rows, op, "valid", wanted, marked);
  const int64_t real = real_rows(op, check_count(op, count, rgb_predicted), list.numel());
  for (int64_t i = 0; i < real; ++i)
    CFR_CHECK(numbers[i] >= 0 && numbers[i] < rows, op, "replaced", "rows of rgb_predicted", numbers[i]);

  const Tensor map = map_like(valid), put = with_contiguous_rows(replacement);
  Rows replacements = rows_of(put);
  replacements.rows = real;
  cpu::replace_and_score(rgb.view(), xyz.view(), replacements, numbers, masks, map.mutable_data_ptr<float>());
  return map;
}

#ifdef CFR_FAST_CUDA
// Values of entries, lists, counts, `replaced` and `valid` go unchecked here: reading them would wait for the device.
Tensor interpolate_tokens_cuda(const Tensor& tokens, const Tensor& offset, const Tensor& source, const Tensor& weight,
                               const std::optional<Tensor>& rows, const std::optional<Tensor>& count,
                               int64_t stream) {
  check_float_matrix("interpolate_tokens", "tokens", tokens);
  const InterpolationTensors entries("interpolate_tokens", tokens, offset, source, weight);
  const ListedTensors list("interpolate_tokens", entries.view().pixels, rows, count, tokens);
  const Tensor t = with_contiguous_rows(tokens);
  const Tensor out = empty_like_device(tokens, list.view.size, tokens.size(1), ScalarType::Float);
  if (out.numel() > 0)
    cuda::interpolate_tokens(rows_of(t), entries.view(), list.view, out.mutable_data_ptr<float>(),
                             tokens.get_device_index(), reinterpret_cast<void*>(stream));
  return out;
}

Tensor geglu_map_cuda(const Tensor& projected, const Tensor& offset, const Tensor& source, const Tensor& weight,
                      const Tensor& bias, const Tensor& out_weight, const Tensor& out_bias,
                      const std::optional<Tensor>& count, int64_t stream) {
  check_geglu_map(projected, bias, out_weight, out_bias);
  const int64_t* const real = check_count("geglu_map", count, projected);
  const InterpolationTensors entries("geglu_map", projected, offset, source, weight);
  const Tensor p = with_contiguous_rows(projected), w = with_contiguous_rows(out_weight);
  const Tensor b = torch::stable::contiguous(bias), c = torch::stable::contiguous(out_bias);
  const Tensor out =
      empty_like_device(projected, entries.view().pixels, out_weight.size(0), ScalarType::Float);
  if (out.numel() == 0) return out;
  const int device = projected.get_device_index();
  const int64_t bytes = cuda::geglu_map_scratch(entries.view().pixels, rows_of(w), device);
  const Tensor scratch = bytes_like_device(projected, bytes);
  cuda::geglu_map(rows_of(p), entries.view(), real, b.const_data_ptr<float>(), rows_of(w), c.const_data_ptr<float>(),
                  scratch.mutable_data_ptr(), out.mutable_data_ptr<float>(), device, reinterpret_cast<void*>(stream));
  return out;
}

Tensor topk_interpolated_cuda(const Tensor& tokens, const Tensor& offset, const Tensor& source,
                              const Tensor& weight, const Tensor& keys, int64_t k, const std::optional<Tensor>& rows,
                              const std::optional<Tensor>& count, int64_t stream) {
  check_topk_interpolated(tokens, keys, k);
  const InterpolationTensors entries("topk_interpolated", tokens, offset, source, weight);
  const ListedTensors list("topk_interpolated", entries.view().pixels, rows, count, tokens);
  const Tensor found = empty_like_device(tokens, list.view.size, k, ScalarType::Long);
  if (found.numel() == 0) return found;
  const Tensor t = with_contiguous_rows(tokens), b = with_contiguous_rows(keys);
  const int device = tokens.get_device_index();
  const int64_t bytes = cuda::topk_interpolated_scratch(rows_of(t), list.view, rows_of(b), k, device);
  const Tensor scratch = bytes_like_device(tokens, bytes);
  cuda::topk_interpolated(rows_of(t), entries.view(), list.view, rows_of(b), k, scratch.mutable_data_ptr(),
                          found.mutable_data_ptr<int64_t>(), device, reinterpret_cast<void*>(stream));
  return found;
}

Tensor replace_and_score_cuda(const Tensor& rgb_predicted, const Tensor& rgb_tokens, const Tensor& rgb_offset,
                              const Tensor& rgb_source, const Tensor& rgb_weight, const Tensor& xyz_predicted,
                              const Tensor& xyz_tokens, const Tensor& xyz_offset, const Tensor& xyz_source,
                              const Tensor& xyz_weight, const Tensor& replacement, const Tensor& replaced,
                              const Tensor& valid, const std::optional<Tensor>& count, int64_t stream) {
  const int64_t* const real = check_count("replace_and_score", count, rgb_predicted);
  check_replace_and_score(rgb_predicted, rgb_tokens, xyz_predicted, xyz_tokens, replacement, replaced, valid);
  const ModalityTensors rgb(rgb_predicted, rgb_tokens, rgb_offset, rgb_source, rgb_weight);
  const ModalityTensors xyz(xyz_predicted, xyz_tokens, xyz_offset, xyz_source, xyz_weight);
  rgb.check_pixels("replace_and_score", "rgb_offset");
  xyz.check_pixels("replace_and_score", "xyz_offset");
  const Tensor map = map_like(valid);
  if (map.numel() == 0) return map;
  const Tensor mask = torch::stable::contiguous(valid), list = torch::stable::contiguous(replaced);
  const Tensor put = with_contiguous_rows(replacement);
  const int64_t numbers = cuda::replace_and_score_scratch(rgb_predicted.size(0), map.numel());
  const Tensor scratch = empty_like_device(map, 1, numbers, ScalarType::Long);
  const Tensor product = map_like(valid);
  cuda::replace_and_score(rgb.view(), xyz.view(), rows_of(put), list.const_data_ptr<int64_t>(), real, masks_of(mask),
                          scratch.mutable_data_ptr<int64_t>(), product.mutable_data_ptr<float>(),
                          map.mutable_data_ptr<float>(), rgb_predicted.get_device_index(),
                          reinterpret_cast<void*>(stream));
  return map;
}
#endif

}  // namespace
}  // namespace cfr
