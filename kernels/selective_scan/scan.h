// The algorithm, included once per instruction set with LANES channels side by side in a vector.
// States of a chunk are made again from its start when gradients need them.
#include <cstring>
#include <memory>

#include "selective_scan.h"

namespace tokenizers_vq {
namespace scan {
namespace {

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Words __attribute__((vector_size(4 * LANES)));

inline Vector splat(float x) { return x - Vector{}; }

inline Vector load(const float* p, int64_t count) {
  Vector v{};
  if (count >= LANES) {
    memcpy(&v, p, sizeof v);
  } else {
    memcpy(&v, p, static_cast<size_t>(count) * 4);
  }
  return v;
}

inline void store(float* p, const Vector& v, int64_t count) {
  if (count >= LANES) {
    memcpy(p, &v, sizeof v);
  } else {
    memcpy(p, &v, static_cast<size_t>(count) * 4);
  }
}

inline float sum(const Vector& v) {
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
}

// e^x = 2^n e^f, |f| <= ln 2 / 2, and e^f = 1 + f + f^2 q(f); q is a least-squares fit at Chebyshev
// nodes, off by 1e-8. Below -87 it stays at e^-87, above 88 at e^88.
inline Vector exponential(Vector x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const Vector shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to whole numbers
  const Vector n = shifted - 12582912.0f;
  const Vector f = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Vector q = splat(1.393364352e-03f);
  q = q * f + 8.363175565e-03f;
  q = q * f + 4.166646498e-02f;
  q = q * f + 1.666657700e-01f;
  q = q * f + 5.000000013e-01f;
  const Vector e = (q * f * f + f) + 1.0f;
  return e * (Vector)((__builtin_convertvector(n, Words) + 127) << 23);
}

struct Vectors {  // aligned, and zero at first
  explicit Vectors(int64_t count)
      : memory(new char[static_cast<size_t>(count + 1) * sizeof(Vector)]()),
        start(reinterpret_cast<Vector*>((reinterpret_cast<uintptr_t>(memory.get()) + sizeof(Vector) - 1) /
                                        sizeof(Vector) * sizeof(Vector))) {}
  Vector& operator[](int64_t i) const { return start[i]; }
  std::unique_ptr<char[]> memory;
  Vector* start;
};

// rows (count, states) of memory from and to vectors: lane i holds row i
inline void gather(const float* from, int64_t count, int64_t states, Vector* to) {
  for (int64_t n = 0; n < states; ++n) {
    Vector v{};
    for (int64_t i = 0; i < count; ++i) v[i] = from[i * states + n];
    to[n] = v;
  }
}

inline void scatter(const Vector* from, int64_t count, int64_t states, float* to, bool add) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t n = 0; n < states; ++n) {
      float& place = to[i * states + n];
      place = from[n][i] + (add ? place : 0.0f);
    }
  }
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

void forward(const Problem& p, const Forward& out, const Task& task) {
  const int64_t states = p.states, row = task.item * p.steps;
  const float *b = p.b + row * states, *c = p.c + row * states;
  Vectors h(states), a(states);
  for (int64_t at = task.begin; at < task.end; at += LANES) {
    const int64_t count = smaller(LANES, task.end - at);
    const int64_t state = (task.item * p.width + at) * states;
    gather(out.state + state, count, states, h.start);
    gather(p.a + at * states, count, states, a.start);
    for (int64_t t = 0; t < p.steps; ++t) {
      if (t % kChunk == 0) {
        const int64_t chunk = t / kChunk * p.batch * p.width * states;
        scatter(h.start, count, states, out.starts + chunk + state, false);
      }
      const int64_t place = (row + t) * p.width + at;
      const Vector delta = load(p.delta + place, count), du = delta * load(p.u + place, count);
      Vector y{};
      for (int64_t n = 0; n < states; ++n) {
        h[n] = exponential(delta * a[n]) * h[n] + du * b[t * states + n];
        y += h[n] * c[t * states + n];
      }
      store(out.y + place, y, count);
    }
    scatter(h.start, count, states, out.last + state, false);
  }
}

// One chunk of LANES channels: the states again, then the gradients from its end to its start.
struct Chunk {
  const Vectors &h, &decay, &db, &dc;  // (kChunk + 1, N), (kChunk, N), and sums over channels

  void run(const Problem& p, const Backward& out, const Task& task, int64_t at, int64_t from,
           int64_t length, const Vector* a, Vector* carry, Vector* da) const {
    const int64_t states = p.states, row = task.item * p.steps + from;
    const int64_t count = smaller(LANES, task.end - at);
    const float *b = p.b + row * states, *c = p.c + row * states;
    const int64_t chunk = from / kChunk * p.batch * p.width * states;
    gather(out.starts + chunk + (task.item * p.width + at) * states, count, states, h.start);
    for (int64_t t = 0; t < length; ++t) {
      const int64_t place = (row + t) * p.width + at;
      const Vector delta = load(p.delta + place, count), du = delta * load(p.u + place, count);
      for (int64_t n = 0; n < states; ++n) {
        const int64_t i = t * states + n;
        const Vector e = exponential(delta * a[n]);
        decay[i] = e;
        h[i + states] = e * h[i] + du * b[i];
      }
    }
    for (int64_t t = length - 1; t >= 0; --t) {
      const int64_t place = (row + t) * p.width + at;
      const Vector delta = load(p.delta + place, count), u = load(p.u + place, count);
      const Vector dy = load(out.dy + place, count), du = delta * u;
      Vector to_input{}, to_decay{};
      for (int64_t n = 0; n < states; ++n) {
        const int64_t i = t * states + n;
        Vector g = carry[n] + dy * c[i];
        dc[i] += dy * h[i + states];
        db[i] += g * du;
        to_input += g * b[i];
        g *= decay[i];
        carry[n] = g;
        g *= h[i];
        to_decay += g * a[n];
        da[n] += g * delta;
      }
      store(out.ddelta + place, to_decay + u * to_input, count);
      store(out.du + place, delta * to_input, count);
    }
  }
};

void backward(const Problem& p, const Backward& out, const Task& task) {
  const int64_t states = p.states, blocks = (task.end - task.begin + LANES - 1) / LANES;
  Vectors h((kChunk + 1) * states), decay(kChunk * states), db(kChunk * states), dc(kChunk * states);
  Vectors a(blocks * states), carry(blocks * states), da(blocks * states);
  const int64_t state = (task.item * p.width + task.begin) * states;
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t skip = k * LANES * states, count = smaller(LANES, task.end - task.begin - k * LANES);
    gather(p.a + task.begin * states + skip, count, states, &a[k * states]);
    gather(out.dlast + state + skip, count, states, &carry[k * states]);
  }
  const Chunk chunk{h, decay, db, dc};
  for (int64_t from = (p.chunks() - 1) * kChunk; from >= 0; from -= kChunk) {
    const int64_t length = smaller(kChunk, p.steps - from);
    memset(static_cast<void*>(db.start), 0, static_cast<size_t>(length * states) * sizeof(Vector));
    memset(static_cast<void*>(dc.start), 0, static_cast<size_t>(length * states) * sizeof(Vector));
    for (int64_t k = 0; k < blocks; ++k) {
      chunk.run(p, out, task, task.begin + k * LANES, from, length, &a[k * states],
                &carry[k * states], &da[k * states]);
    }
    for (int64_t i = 0; i < length * states; ++i) {
      task.db[from * states + i] = sum(db[i]);
      task.dc[from * states + i] = sum(dc[i]);
    }
  }
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t skip = k * LANES * states, count = smaller(LANES, task.end - task.begin - k * LANES);
    scatter(&carry[k * states], count, states, out.dstate + state + skip, false);
    scatter(&da[k * states], count, states, task.da + task.begin * states + skip, true);
  }
}

}  // namespace
}  // namespace scan
}  // namespace tokenizers_vq
