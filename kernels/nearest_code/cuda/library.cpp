// Binding of the CUDA kernels to torch through its stable ABI, for the ops that ../library.cpp has for the CPU.
// Everything runs on the current stream and in memory of torch's allocator, nothing waits for the device: the
// ops can be captured in a CUDA graph. Shapes and dtypes are checked in Python, where errors read well.
//
// With TOKENIZERS_VQ_EMULATED the same code runs on CPU tensors, as ops of the library tokenizers_vq_emulated.
#include <Python.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "launch.h"

namespace nearest_code {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

#ifdef TOKENIZERS_VQ_EMULATED
struct OnDevice {
  void* stream = nullptr;
  explicit OnDevice(const Tensor&) {}
};
constexpr int64_t ROWS_AT_ONCE = 50;
#else
// Makes the device of a tensor the current one while it lives, and knows its current stream.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
  explicit OnDevice(const Tensor& t) : guard(t.get_device_index()) {
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  }
};
constexpr int64_t ROWS_AT_ONCE = 1 << 18;  // bounds the lists of candidates: 70 MB
#endif

Tensor with_contiguous_rows(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  return t.size(last) == 1 || t.stride(last) == 1 ? t : torch::stable::contiguous(t);
}

template <class T>
const T* values(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* room(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// bfloat16 unless the environment variable TOKENIZERS_VQ_CUDA says float32, for few channels.
Filter chosen_filter(int64_t channels) {
  const char* wish = getenv("TOKENIZERS_VQ_CUDA");
  const bool float32 = wish && !strcmp(wish, "float32");
  return float32 && channels <= FLOAT32_CHANNELS ? Filter::Float32 : Filter::Bfloat16;
}

void check_search(const char* op, const Tensor& x, const Tensor& codebook) {
  const int64_t rank = x.dim();
  STD_TORCH_CHECK((rank == 2 || rank == 3) && codebook.dim() == rank && x.size(rank - 1) == codebook.size(rank - 1) &&
                      (rank == 2 || x.size(0) == codebook.size(0)),
                  op, ": expected x (N, d) and codebook (K, d), or both with groups in front");
  const int64_t codes = codebook.size(rank - 2), channels = codebook.size(rank - 1);
  STD_TORCH_CHECK(codes > 0 && channels > 0, op, ": expected at least one code and one column");
  STD_TORCH_CHECK(codes < 1 << 30 && channels < 1 << 24, op, ": expected fewer than 2^30 codes and 2^24 columns");
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && codebook.scalar_type() == ScalarType::Float, op,
                  ": expected float32");
  STD_TORCH_CHECK(x.get_device_index() == codebook.get_device_index(), op,
                  ": expected x and codebook on one device");
}

// The search of one codebook by as many rows as are taken at once, or by all if they are fewer.
Problem problem_of(const Tensor& x, const Tensor& codebook, bool product) {
  const int64_t rank = x.dim();
  Problem p;
  p.row_stride = x.stride(rank - 2), p.code_stride = codebook.stride(rank - 2);
  p.codes = static_cast<int>(codebook.size(rank - 2)), p.channels = static_cast<int>(codebook.size(rank - 1));
  p.product = product, p.filter = chosen_filter(p.channels);
  p.rows = std::min(x.size(rank - 2), ROWS_AT_ONCE);
  p.splits = choose_splits(p, multiprocessors());
  return p;
}

Tensor bytes_for(const Tensor& like, size_t bytes) {
  return torch::stable::new_empty(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
}

// (N, d) against (K, d), or for each of G groups: (G, N, d) against (G, K, d).
std::tuple<Tensor, Tensor> search_cuda(const char* op, const Tensor& x_in, const Tensor& codebook_in, bool product) {
  check_search(op, x_in, codebook_in);
  const OnDevice device(x_in);
  const Tensor x = with_contiguous_rows(x_in), codebook = with_contiguous_rows(codebook_in);
  const int64_t rank = x.dim(), groups = rank == 3 ? x.size(0) : 1, rows = x.size(rank - 2);
  const std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end() - 1);
  Tensor value = torch::stable::new_empty(x, shape, ScalarType::Float);
  Tensor index = torch::stable::new_empty(x, shape, ScalarType::Long);
  if (groups * rows == 0) return {value, index};
  Problem p = problem_of(x, codebook, product);
  // The searches follow each other on the stream: one workspace serves them all.
  const Tensor workspace = bytes_for(x, Workspace(p).bytes);
  for (int64_t g = 0; g < groups; g++)
    for (int64_t done = 0; done < rows; done += ROWS_AT_ONCE) {
      p.rows = std::min(rows - done, ROWS_AT_ONCE);
      const char* const error =
          launch(p, values<float>(x) + (rank == 3 ? g * x.stride(0) : 0) + done * p.row_stride,
                 values<float>(codebook) + (rank == 3 ? g * codebook.stride(0) : 0), room<unsigned char>(workspace),
                 room<float>(value) + g * rows + done, room<int64_t>(index) + g * rows + done, device.stream);
      STD_TORCH_CHECK(!error, op, ": ", error);
    }
  return {value, index};
}

std::tuple<Tensor, Tensor> nearest_code_cuda(const Tensor& x, const Tensor& codebook) {
  return search_cuda("nearest_code", x, codebook, false);
}

std::tuple<Tensor, Tensor> largest_product_cuda(const Tensor& x, const Tensor& codebook) {
  return search_cuda("largest_product", x, codebook, true);
}

Tensor residual_codes_cuda(const Tensor& x_in, const std::vector<Tensor> codebooks_in) {
  STD_TORCH_CHECK(x_in.dim() == 2 && codebooks_in.size(),
                  "residual_codes: expected x (N, d) and at least one codebook");
  for (const Tensor& t : codebooks_in) check_search("residual_codes", x_in, t);
  const OnDevice device(x_in);
  const Tensor x = with_contiguous_rows(x_in);
  std::vector<Tensor> codebooks;  // holds what may be copies
  std::vector<Stage> stages;
  size_t bytes = 0;
  for (const Tensor& t : codebooks_in) {
    codebooks.push_back(with_contiguous_rows(t));
    stages.push_back({problem_of(x, codebooks.back(), false), values<float>(codebooks.back())});
    bytes = std::max(bytes, Workspace(stages.back().problem).bytes);
  }
  const int64_t rows = x.size(0), depth = static_cast<int64_t>(stages.size()), at_once = stages[0].problem.rows;
  Tensor index = torch::stable::new_empty(x, {rows, depth}, ScalarType::Long);
  const Tensor sum = torch::stable::new_empty(x, {at_once, x.size(1)}, ScalarType::Float);
  const Tensor rest = torch::stable::new_empty(x, {at_once, x.size(1)}, ScalarType::Float);
  const Tensor workspace = bytes_for(x, bytes);
  for (int64_t done = 0; done < rows; done += ROWS_AT_ONCE) {
    for (Stage& stage : stages) stage.problem.rows = std::min(rows - done, ROWS_AT_ONCE);
    const char* const error =
        launch(stages.data(), depth, values<float>(x) + done * x.stride(0), room<float>(sum), room<float>(rest),
               room<unsigned char>(workspace), room<int64_t>(index) + done * depth, device.stream);
    STD_TORCH_CHECK(!error, "residual_codes: ", error);
  }
  return index;
}

// Stable, so that equal codes keep the order of their rows.
std::tuple<Tensor, Tensor> sorted(const Tensor& index) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(index),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t{-1}), torch::stable::detail::from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

// An index outside 0..size - 1 belongs to no code: finding it would mean to wait for the device.
std::tuple<Tensor, Tensor> code_stats_cuda(const Tensor& x_in, const Tensor& index, int64_t size) {
  STD_TORCH_CHECK(x_in.dim() == 2 && index.dim() == 1 && x_in.size(0) == index.size(0),
                  "code_stats: expected x (N, d) and index (N,)");
  STD_TORCH_CHECK(x_in.scalar_type() == ScalarType::Float && index.scalar_type() == ScalarType::Long,
                  "code_stats: expected float32 rows and int64 indices");
  STD_TORCH_CHECK(x_in.size(1) > 0 && size > 0, "code_stats: expected at least one code and one column");
  STD_TORCH_CHECK(x_in.get_device_index() == index.get_device_index(),
                  "code_stats: expected x and index on one device");
  const OnDevice device(x_in);
  const Tensor x = with_contiguous_rows(x_in);
  const auto [codes, order] = sorted(index);
  Tensor counts = torch::stable::new_empty(x, {size}, ScalarType::Float);
  Tensor sums = torch::stable::new_empty(x, {size, x.size(1)}, ScalarType::Float);
  const Tensor start = torch::stable::new_empty(x, {size + 1}, ScalarType::Long);
  Stats stats;
  stats.x = values<float>(x);
  stats.rows = x.size(0), stats.row_stride = x.stride(0), stats.channels = x.size(1), stats.codes = size;
  stats.sorted = values<int64_t>(codes), stats.order = values<int64_t>(order);
  stats.start = room<int64_t>(start), stats.counts = room<float>(counts), stats.sums = room<float>(sums);
  const char* const error = launch(stats, device.stream);
  STD_TORCH_CHECK(!error, "code_stats: ", error);
  return {counts, sums};
}

}  // namespace
}  // namespace nearest_code

#ifdef TOKENIZERS_VQ_EMULATED
STABLE_TORCH_LIBRARY(tokenizers_vq_emulated, m) {
  m.def("nearest_code(Tensor x, Tensor codebook) -> (Tensor sqdist, Tensor index)");
  m.def("largest_product(Tensor x, Tensor codebook) -> (Tensor product, Tensor index)");
  m.def("residual_codes(Tensor x, Tensor[] codebooks) -> Tensor");
  m.def("code_stats(Tensor x, Tensor index, int size) -> (Tensor counts, Tensor sums)");
}
STABLE_TORCH_LIBRARY_IMPL(tokenizers_vq_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(tokenizers_vq, CUDA, m) {
#endif
  m.impl("nearest_code", TORCH_BOX(&nearest_code::nearest_code_cuda));
  m.impl("largest_product", TORCH_BOX(&nearest_code::largest_product_cuda));
  m.impl("residual_codes", TORCH_BOX(&nearest_code::residual_codes_cuda));
  m.impl("code_stats", TORCH_BOX(&nearest_code::code_stats_cuda));
}

// An importable module with no functions: loading it registers the ops above.
PyMODINIT_FUNC PyInit__C_cuda(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr,
                                   nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
