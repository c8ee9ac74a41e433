// Binding to torch through its stable ABI: one binary for torch >= 2.10 and CPython >= 3.10.
// Shapes and dtypes are checked in Python, where errors read well; here only what memory needs.
#include <Python.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <tuple>
#include <vector>

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
  const int64_t last = t.dim() - 1;
  return t.size(last) == 1 || t.stride(last) == 1 ? t : torch::stable::contiguous(t);
}

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }

Codes codes_of(const Tensor& t, int64_t group, bool product) {
  const bool many = t.dim() == 3;
  return {floats(t) + (many ? group * t.stride(0) : 0), t.size(many), t.size(many + 1),
          t.stride(many), product};
}

int threads() { return static_cast<int>(torch::stable::get_num_threads()); }

// (N, d) against (K, d), or for each of G groups: (G, N, d) against (G, K, d).
std::tuple<Tensor, Tensor> search_cpu(const Tensor& x_in, const Tensor& codebook_in, bool product) {
  const int64_t rank = x_in.dim();
  STD_TORCH_CHECK((rank == 2 || rank == 3) && codebook_in.dim() == rank &&
                      x_in.size(rank - 1) == codebook_in.size(rank - 1) &&
                      (rank == 2 || x_in.size(0) == codebook_in.size(0)),
                  "expected x (N, d) and codebook (K, d), or both with groups in front");
  STD_TORCH_CHECK(codebook_in.size(rank - 2) > 0 && codebook_in.size(rank - 1) > 0,
                  "expected at least one code and one column");
  STD_TORCH_CHECK(x_in.scalar_type() == ScalarType::Float &&
                      codebook_in.scalar_type() == ScalarType::Float,
                  "expected float32");
  const Tensor x = with_contiguous_rows(x_in), codebook = with_contiguous_rows(codebook_in);
  const int64_t groups = rank == 3 ? x.size(0) : 1, rows = x.size(rank - 2);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end() - 1);
  Tensor value = torch::stable::new_empty(x, shape, ScalarType::Float);
  Tensor index = torch::stable::new_empty(x, shape, ScalarType::Long);
  if (groups * rows == 0) return {value, index};
  float* const values = static_cast<float*>(value.mutable_data_ptr());
  int64_t* const indices = static_cast<int64_t*>(index.mutable_data_ptr());
  auto run = [&](int64_t begin, int64_t end, int inner) {
    for (int64_t g = begin; g < end; ++g) {
      search({floats(x) + (rank == 3 ? g * x.stride(0) : 0), rows, x.stride(rank - 2),
              codes_of(codebook, g, product), values + g * rows, indices + g * rows, inner});
    }
  };
  if (groups >= threads() && groups > 1) {  // a group per thread, otherwise rows are split
    torch::stable::parallel_for(0, groups, 1, [&](int64_t b, int64_t e) { run(b, e, 1); });
  } else {
    run(0, groups, threads());
  }
  return {value, index};
}

std::tuple<Tensor, Tensor> nearest_code_cpu(const Tensor& x, const Tensor& codebook) {
  return search_cpu(x, codebook, false);
}

std::tuple<Tensor, Tensor> largest_product_cpu(const Tensor& x, const Tensor& codebook) {
  return search_cpu(x, codebook, true);
}

Tensor residual_codes_cpu(const Tensor& x_in, const std::vector<Tensor> codebooks_in) {
  STD_TORCH_CHECK(x_in.dim() == 2 && x_in.scalar_type() == ScalarType::Float && codebooks_in.size(),
                  "residual_codes: expected float32 x (N, d) and at least one codebook");
  const Tensor x = with_contiguous_rows(x_in);
  std::vector<Tensor> codebooks;
  std::vector<Codes> books;
  for (const Tensor& t : codebooks_in) {
    STD_TORCH_CHECK(t.dim() == 2 && t.size(1) == x.size(1) && t.size(0) > 0 && t.size(1) > 0 &&
                        t.scalar_type() == ScalarType::Float,
                    "residual_codes: expected float32 codebooks (K, d)");
    codebooks.push_back(with_contiguous_rows(t));
    books.push_back(codes_of(codebooks.back(), 0, false));
  }
  const int64_t depth = static_cast<int64_t>(books.size());
  Tensor index = torch::stable::new_empty(x, {x.size(0), depth}, ScalarType::Long);
  if (x.size(0) > 0) {
    search_residual(floats(x), x.size(0), x.stride(0), books.data(), depth,
                    static_cast<int64_t*>(index.mutable_data_ptr()), threads());
  }
  return index;
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
  m.impl("largest_product", TORCH_BOX(&tokenizers_vq::largest_product_cpu));
  m.impl("residual_codes", TORCH_BOX(&tokenizers_vq::residual_codes_cpu));
  m.impl("code_stats", TORCH_BOX(&tokenizers_vq::code_stats_cpu));
}

// An importable module: loading it registers the ops above. Its one function says what is kept.
static PyObject* cache(PyObject*, PyObject*) {
  const tokenizers_vq::CacheState now = tokenizers_vq::cache_state();
  return Py_BuildValue("LLL", static_cast<long long>(now.hits), static_cast<long long>(now.misses),
                       static_cast<long long>(now.bytes));
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyMethodDef methods[] = {
      {"cache", cache, METH_NOARGS, "Hits, misses and bytes of the packed codebooks that are kept."},
      {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods,
                                   nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(&definition);
  if (module) {
    PyModule_AddStringConstant(module, "SUPPORTED", tokenizers_vq::supported());
    PyModule_AddStringConstant(module, "PREFERRED", tokenizers_vq::preferred());
  }
  return module;
}
