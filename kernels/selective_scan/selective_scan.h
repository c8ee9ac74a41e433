// The selective scan of Mamba-1 and its gradients: what the instruction sets and the binding share.
//
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = C_t . h_t
//
// Arrays are contiguous float32: u, delta, y (batch, steps, width); a (width, states); b, c (batch,
// steps, states); a state (batch, width, states); starts: the states before each chunk, chunk first.
#pragma once
#include <cstdint>

namespace tokenizers_vq {
namespace scan {

constexpr int64_t kChunk = 64;  // CHUNK of functional/selective_scan.py

struct Problem {
  int64_t batch, steps, width, states;
  const float *u, *delta, *a, *b, *c;
  int64_t chunks() const { return (steps + kChunk - 1) / kChunk; }
};

struct Forward {
  const float* state;
  float *y, *last, *starts;
};

// A task takes channels [begin, end) of one item. da, db and dc are its own, to be added up.
struct Backward {
  const float *dy, *dlast, *starts;
  float *du, *ddelta, *dstate;
};
struct Task {
  int64_t item, begin, end;
  float *da, *db, *dc;  // (width, states), (steps, states) twice; zero at first
};

struct Kernel {
  const char* name;
  int64_t lanes;
  void (*forward)(const Problem&, const Forward&, const Task&);
  void (*backward)(const Problem&, const Backward&, const Task&);
};

extern const Kernel kGeneric, kAvx2, kAvx512;

}  // namespace scan
}  // namespace tokenizers_vq
