// Every op's schema and the function behind it; argument checks are in the headers.
//
// Fake implementations and gradients live in Python (cfr_fast/ops). CUDA kernels take the stream as an integer,
// which Python reads when the kernel runs: the stable ABI of torch 2.11 has no handle for it.
#include "attention_ops.h"
#include "point_ops.h"
#include "search_ops.h"
#include "token_ops.h"

// Tests build the CUDA kernels for the CPU; those then live in a namespace of their own beside the real library.
#ifdef CFR_EMULATION
#define CFR_NAMESPACE cfr_emulated
#define CFR_CUDA_KEY CPU
#else
#define CFR_NAMESPACE cfr_fast
#define CFR_CUDA_KEY CUDA
#endif
#define CFR_LIBRARY(name, m) STABLE_TORCH_LIBRARY(name, m)
#define CFR_LIBRARY_IMPL(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)

CFR_LIBRARY(CFR_NAMESPACE, m) {
  m.def("topk_cosine(Tensor query, Tensor keys, int k, str precision='bf16') -> (Tensor, Tensor)");
  m.def("confidence_filter(Tensor query, Tensor bank, float threshold, Tensor? valid=None) -> Tensor");
  m.def(
      "confidence_filter_padded(Tensor query, Tensor bank, float threshold, Tensor? valid=None) -> (Tensor, Tensor)");
  m.def(
      "replace_and_score(Tensor rgb_predicted, Tensor rgb_tokens, Tensor rgb_offset, Tensor rgb_source, Tensor "
      "rgb_weight, Tensor xyz_predicted, Tensor xyz_tokens, Tensor xyz_offset, Tensor xyz_source, Tensor xyz_weight, "
      "Tensor replacement, Tensor replaced, Tensor valid, Tensor? count=None) -> Tensor");
  m.def(
      "interpolate_tokens(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor? rows=None, Tensor? "
      "count=None) -> Tensor");
  m.def(
      "geglu_map(Tensor projected, Tensor offset, Tensor source, Tensor weight, Tensor bias, Tensor out_weight, "
      "Tensor out_bias, Tensor? count=None) -> Tensor");
  m.def(
      "topk_interpolated(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor keys, int k, Tensor? "
      "rows=None, Tensor? count=None) -> Tensor");
  m.def("farthest_point_sample(Tensor points, int count, Tensor? initial_distance=None) -> Tensor");
  m.def("three_nn(Tensor points, Tensor centers) -> (Tensor, Tensor)");
  m.def("knn(Tensor points, Tensor centers, int k) -> Tensor");
  m.def(
      "topk_attention(Tensor query, Tensor keys, Tensor values, Tensor index, float scale, Tensor? count=None) "
      "-> Tensor");
  m.def(
      "topk_attention_backward(Tensor grad, Tensor query, Tensor keys, Tensor values, Tensor index, float scale, "
      "Tensor? count=None) -> (Tensor, Tensor, Tensor)");
  m.def("bank_attention(Tensor query, Tensor keys, Tensor values, float scale) -> Tensor");
#ifdef CFR_FAST_CUDA
  m.def("topk_cosine_cuda(Tensor query, Tensor keys, int k, str precision, int stream) -> (Tensor, Tensor)");
  m.def("confidence_filter_cuda(Tensor query, Tensor bank, float threshold, Tensor? valid, int stream) -> Tensor");
  m.def(
      "confidence_filter_padded_cuda(Tensor query, Tensor bank, float threshold, Tensor? valid, int stream) "
      "-> (Tensor, Tensor)");
  m.def("farthest_point_sample_cuda(Tensor points, int count, Tensor? initial_distance, int stream) -> Tensor");
  m.def("three_nn_cuda(Tensor points, Tensor centers, int stream) -> (Tensor, Tensor)");
  m.def("knn_cuda(Tensor points, Tensor centers, int k, int stream) -> Tensor");
  m.def(
      "interpolate_tokens_cuda(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor? rows, Tensor? "
      "count, int stream) -> Tensor");
  m.def(
      "geglu_map_cuda(Tensor projected, Tensor offset, Tensor source, Tensor weight, Tensor bias, Tensor out_weight, "
      "Tensor out_bias, Tensor? count, int stream) -> Tensor");
  m.def(
      "topk_interpolated_cuda(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor keys, int k, Tensor? "
      "rows, Tensor? count, int stream) -> Tensor");
  m.def(
      "replace_and_score_cuda(Tensor rgb_predicted, Tensor rgb_tokens, Tensor rgb_offset, Tensor rgb_source, Tensor "
      "rgb_weight, Tensor xyz_predicted, Tensor xyz_tokens, Tensor xyz_offset, Tensor xyz_source, Tensor xyz_weight, "
      "Tensor replacement, Tensor replaced, Tensor valid, Tensor? count, int stream) -> Tensor");
  m.def(
      "topk_attention_cuda(Tensor query, Tensor keys, Tensor values, Tensor index, float scale, Tensor? count, int "
      "stream) -> Tensor");
  m.def("bank_attention_cuda(Tensor query, Tensor keys, Tensor values, float scale, int stream) -> Tensor");
#endif
}

CFR_LIBRARY_IMPL(CFR_NAMESPACE, CPU, m) {
  m.impl("topk_cosine", TORCH_BOX(&cfr::topk_cosine));
  m.impl("confidence_filter", TORCH_BOX(&cfr::confidence_filter));
  m.impl("confidence_filter_padded", TORCH_BOX(&cfr::confidence_filter_padded));
  m.impl("replace_and_score", TORCH_BOX(&cfr::replace_and_score));
  m.impl("interpolate_tokens", TORCH_BOX(&cfr::interpolate_tokens));
  m.impl("geglu_map", TORCH_BOX(&cfr::geglu_map));
  m.impl("topk_interpolated", TORCH_BOX(&cfr::topk_interpolated));
  m.impl("farthest_point_sample", TORCH_BOX(&cfr::farthest_point_sample));
  m.impl("three_nn", TORCH_BOX(&cfr::three_nn));
  m.impl("knn", TORCH_BOX(&cfr::knn));
  m.impl("topk_attention", TORCH_BOX(&cfr::topk_attention));
  m.impl("topk_attention_backward", TORCH_BOX(&cfr::topk_attention_backward));
  m.impl("bank_attention", TORCH_BOX(&cfr::bank_attention));
}

#ifdef CFR_FAST_CUDA
CFR_LIBRARY_IMPL(CFR_NAMESPACE, CFR_CUDA_KEY, m) {
  m.impl("topk_cosine_cuda", TORCH_BOX(&cfr::topk_cosine_cuda));
  m.impl("confidence_filter_cuda", TORCH_BOX(&cfr::confidence_filter_cuda));
  m.impl("confidence_filter_padded_cuda", TORCH_BOX(&cfr::confidence_filter_padded_cuda));
  m.impl("farthest_point_sample_cuda", TORCH_BOX(&cfr::farthest_point_sample_cuda));
  m.impl("three_nn_cuda", TORCH_BOX(&cfr::three_nn_cuda));
  m.impl("knn_cuda", TORCH_BOX(&cfr::knn_cuda));
  m.impl("interpolate_tokens_cuda", TORCH_BOX(&cfr::interpolate_tokens_cuda));
  m.impl("geglu_map_cuda", TORCH_BOX(&cfr::geglu_map_cuda));
  m.impl("topk_interpolated_cuda", TORCH_BOX(&cfr::topk_interpolated_cuda));
  m.impl("replace_and_score_cuda", TORCH_BOX(&cfr::replace_and_score_cuda));
  m.impl("topk_attention_cuda", TORCH_BOX(&cfr::topk_attention_cuda));
  m.impl("bank_attention_cuda", TORCH_BOX(&cfr::bank_attention_cuda));
}
#endif
