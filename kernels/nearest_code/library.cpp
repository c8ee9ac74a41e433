// Binding to torch through its stable ABI: one binary for torch >= 2.10 and CPython >= 3.10.
// Shapes and dtypes are checked in Python, where errors read well; here only what memory needs.
#include <Python.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <tuple>

#include "nearest_code.h"

namespace tokenizers_vq {

void parallel(int64_t count, Body body, void* context) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    body(begin, end, context);
  });
}

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor with_contiguous_rows(const Tensor& t) {
  return t.size(1) == 1 || t.stride(1) == 1 ? t : torch::stable::contiguous(t);
}

std::tuple<Tensor, Tensor> nearest_code_cpu(const Tensor& x_in, const Tensor& codebook_in) {
  STD_TORCH_CHECK(x_in.dim() == 2 && codebook_in.dim() == 2 && x_in.size(1) == codebook_in.size(1),
                  "nearest_code: expected x (N, d) and codebook (K, d)");
  STD_TORCH_CHECK(codebook_in.size(0) > 0 && codebook_in.size(1) > 0,
                  "nearest_code: expected at least one code and one column");
  STD_TORCH_CHECK(x_in.scalar_type() == ScalarType::Float &&
                      codebook_in.scalar_type() == ScalarType::Float,
                  "nearest_code: expected float32");
  const Tensor x = with_contiguous_rows(x_in), codebook = with_contiguous_rows(codebook_in);
  Tensor distance = torch::stable::new_empty(x, {x.size(0)}, ScalarType::Float);
  Tensor index = torch::stable::new_empty(x, {x.size(0)}, ScalarType::Long);
  if (x.size(0) > 0) {
    search({static_cast<const float*>(x.const_data_ptr()), x.size(0), x.stride(0),
            static_cast<const float*>(codebook.const_data_ptr()), codebook.size(0),
            codebook.stride(0), x.size(1), static_cast<float*>(distance.mutable_data_ptr()),
            static_cast<int64_t*>(index.mutable_data_ptr()),
            static_cast<int>(torch::stable::get_num_threads())});
  }
  return {distance, index};
}

std::tuple<Tensor, Tensor> code_stats_cpu(const Tensor& x_in, const Tensor& index_in,
                                          int64_t size) {
  STD_TORCH_CHECK(x_in.dim() == 2 && index_in.dim() == 1 && x_in.size(0) == index_in.size(0),
                  "code_stats: expected x (N, d) and index (N,)");
  STD_TORCH_CHECK(x_in.scalar_type() == ScalarType::Float &&
                      index_in.scalar_type() == ScalarType::Long,
                  "code_stats: expected float32 rows and int64 indices");
  const Tensor x = with_contiguous_rows(x_in), index = torch::stable::contiguous(index_in);
  Tensor counts = torch::stable::new_empty(x, {size}, ScalarType::Float);
  Tensor sums = torch::stable::new_empty(x, {size, x.size(1)}, ScalarType::Float);
  const bool inside =
      code_stats(static_cast<const float*>(x.const_data_ptr()), x.size(0), x.stride(0), x.size(1),
                 static_cast<const int64_t*>(index.const_data_ptr()), size,
                 static_cast<float*>(counts.mutable_data_ptr()),
                 static_cast<float*>(sums.mutable_data_ptr()));
  STD_TORCH_CHECK(inside, "code_stats: expected indices in 0..", size - 1);
  return {counts, sums};
}

}  // namespace
}  // namespace tokenizers_vq

STABLE_TORCH_LIBRARY_IMPL(tokenizers_vq, CPU, m) {
  m.impl("nearest_code", TORCH_BOX(&tokenizers_vq::nearest_code_cpu));
  m.impl("code_stats", TORCH_BOX(&tokenizers_vq::code_stats_cpu));
}

// An importable module with no functions: loading it registers the ops above.
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr,
                                   nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(&definition);
  if (module) {
    PyModule_AddStringConstant(module, "SUPPORTED", tokenizers_vq::supported());
    PyModule_AddStringConstant(module, "PREFERRED", tokenizers_vq::preferred());
  }
  return module;
}
