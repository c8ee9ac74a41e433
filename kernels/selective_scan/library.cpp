// Binding to torch through its stable ABI, and the choice of the kernel at run time.
// Shapes and dtypes are checked in Python, where errors read well; here only what memory needs.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdlib>
#include <cstring>
#include <tuple>
#include <vector>

#include "selective_scan.h"

namespace tokenizers_vq {
namespace scan {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const Kernel& kernel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  const char* wish = getenv("TOKENIZERS_VQ_ISA");
  if (wish && !strcmp(wish, "generic")) return kGeneric;
  if (avx2 && wish && !strcmp(wish, "avx2")) return kAvx2;
  return avx512 ? kAvx512 : avx2 ? kAvx2 : kGeneric;
#else
  return kGeneric;
#endif
}

const float* read(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* write(Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
Tensor empty(const Tensor& like, std::vector<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Float);
}

struct Inputs {
  Inputs(const Tensor& u_in, const Tensor& delta_in, const Tensor& a_in, const Tensor& b_in,
         const Tensor& c_in)
      : u(torch::stable::contiguous(u_in)), delta(torch::stable::contiguous(delta_in)),
        a(torch::stable::contiguous(a_in)), b(torch::stable::contiguous(b_in)),
        c(torch::stable::contiguous(c_in)) {
    for (const Tensor* t : {&u, &delta, &a, &b, &c}) {
      STD_TORCH_CHECK(t->scalar_type() == ScalarType::Float, "selective_scan: expected float32");
    }
    STD_TORCH_CHECK(u.dim() == 3 && delta.dim() == 3 && a.dim() == 2 && b.dim() == 3 && c.dim() == 3,
                    "selective_scan: expected u, delta, b, c of rank 3 and a of rank 2");
    const int64_t batch = u.size(0), steps = u.size(1), width = u.size(2), states = a.size(1);
    STD_TORCH_CHECK(delta.numel() == u.numel() && a.size(0) == width &&
                        b.numel() == batch * steps * states && c.numel() == b.numel(),
                    "selective_scan: the shapes do not go together");
    problem = {batch, steps, width, states, read(u), read(delta), read(a), read(b), read(c)};
  }
  Tensor u, delta, a, b, c;
  Problem problem;
};

// Channels are divided between threads where there are fewer items than threads.
struct Tasks {
  Tasks(const Problem& p, int64_t lanes) : problem(p), lanes(lanes) {
    const int64_t threads = static_cast<int64_t>(torch::stable::get_num_threads());
    const int64_t blocks = (p.width + lanes - 1) / lanes;
    shares = p.batch ? (threads + p.batch - 1) / p.batch : 1;
    shares = shares < blocks ? shares : blocks;
    if (shares < 1) shares = 1;
    each = (blocks + shares - 1) / shares * lanes;
  }
  int64_t count() const { return problem.batch * shares; }
  Task at(int64_t i) const {
    const int64_t begin = i % shares * each, end = begin + each;
    const int64_t width = problem.width;
    return {i / shares, begin < width ? begin : width, end < width ? end : width,
            nullptr, nullptr, nullptr};
  }
  const Problem& problem;
  int64_t lanes, shares, each;
};

std::tuple<Tensor, Tensor, Tensor> forward_cpu(const Tensor& u, const Tensor& delta,
                                               const Tensor& a, const Tensor& b, const Tensor& c,
                                               const Tensor& state_in) {
  const Inputs in(u, delta, a, b, c);
  const Problem& p = in.problem;
  const Tensor state = torch::stable::contiguous(state_in);
  STD_TORCH_CHECK(state.numel() == p.batch * p.width * p.states &&
                      state.scalar_type() == ScalarType::Float,
                  "selective_scan: expected a float32 state (B, D, N)");
  Tensor y = empty(in.u, {p.batch, p.steps, p.width});
  Tensor last = empty(in.u, {p.batch, p.width, p.states});
  Tensor starts = empty(in.u, {p.chunks(), p.batch, p.width, p.states});
  const Forward out{read(state), write(y), write(last), write(starts)};
  const Kernel& chosen = kernel();
  const Tasks tasks(p, chosen.lanes);
  torch::stable::parallel_for(0, tasks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) chosen.forward(p, out, tasks.at(i));
  });
  return {y, last, starts};
}

void add(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward_cpu(
    const Tensor& dy_in, const Tensor& dlast_in, const Tensor& u, const Tensor& delta,
    const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& starts_in) {
  const Inputs in(u, delta, a, b, c);
  const Problem& p = in.problem;
  const Tensor dy = torch::stable::contiguous(dy_in), dlast = torch::stable::contiguous(dlast_in);
  const Tensor starts = torch::stable::contiguous(starts_in);
  const int64_t state = p.width * p.states, rows = p.steps * p.states;
  STD_TORCH_CHECK(dy.numel() == in.u.numel() && dlast.numel() == p.batch * state &&
                      starts.numel() == p.chunks() * p.batch * state,
                  "selective_scan: the shapes of the gradients do not go together");
  Tensor du = empty(in.u, {p.batch, p.steps, p.width}), ddelta = empty(in.u, {p.batch, p.steps, p.width});
  Tensor da = empty(in.u, {p.width, p.states}), dstate = empty(in.u, {p.batch, p.width, p.states});
  Tensor db = empty(in.u, {p.batch, p.steps, p.states}), dc = empty(in.u, {p.batch, p.steps, p.states});
  const Kernel& chosen = kernel();
  const Tasks tasks(p, chosen.lanes);
  std::vector<float> das(static_cast<size_t>(p.batch * state));
  std::vector<float> sums(static_cast<size_t>(tasks.count() * 2 * rows));
  const Backward out{read(dy), read(dlast), read(starts), write(du), write(ddelta), write(dstate)};
  torch::stable::parallel_for(0, tasks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Task task = tasks.at(i);
      task.da = das.data() + task.item * state;
      task.db = sums.data() + i * 2 * rows;
      task.dc = task.db + rows;
      if (task.begin < task.end) chosen.backward(p, out, task);
    }
  });
  memset(write(da), 0, static_cast<size_t>(state) * 4);
  memset(write(db), 0, static_cast<size_t>(p.batch * rows) * 4);
  memset(write(dc), 0, static_cast<size_t>(p.batch * rows) * 4);
  for (int64_t item = 0; item < p.batch; ++item) add(das.data() + item * state, state, write(da));
  for (int64_t i = 0; i < tasks.count(); ++i) {
    const int64_t item = i / tasks.shares;
    add(sums.data() + i * 2 * rows, rows, write(db) + item * rows);
    add(sums.data() + i * 2 * rows + rows, rows, write(dc) + item * rows);
  }
  return {du, ddelta, da, db, dc, dstate};
}

}  // namespace
}  // namespace scan
}  // namespace tokenizers_vq

STABLE_TORCH_LIBRARY_IMPL(tokenizers_vq, CPU, m) {
  m.impl("selective_scan", TORCH_BOX(&tokenizers_vq::scan::forward_cpu));
  m.impl("selective_scan_gradients", TORCH_BOX(&tokenizers_vq::scan::backward_cpu));
}
