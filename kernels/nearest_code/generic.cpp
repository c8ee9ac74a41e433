// Any machine: GCC's vector types, four floats wide; no fused multiply-add.
#include <cstdint>
#include <cstring>

namespace tokenizers_vq {
namespace {

struct Float32;

struct Isa {
  typedef float Vector __attribute__((vector_size(16)));
  typedef int32_t Notes __attribute__((vector_size(16)));
  static constexpr int kLanes = 4, kVectors = 2, kRows = 4;

  typedef double Doubles __attribute__((vector_size(16)));
  static constexpr int kDoubles = 2;
  static Doubles widen(const float* p) { return Doubles{p[0], p[1]}; }
  static double sum(const Doubles* lanes) {
    const Doubles two = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    return two[0] + two[1];
  }

  static Vector load(const float* p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static Vector load_words(const uint32_t* p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static Vector broadcast_word(uint32_t word) {
    float v;
    memcpy(&v, &word, 4);
    return Vector{v, v, v, v};
  }
  static void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }
  static Vector subtract_product(const Float32&, Vector sum, Vector a, Vector b) {
    return sum - a * b;
  }
  static Vector min(Vector a, Vector b) { return a < b ? a : b; }
  static unsigned not_greater(Vector a, float limit) {
    unsigned mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<unsigned>(!(a[i] > limit)) << i;
    return mask;
  }
  static Notes note(const Notes& notes, const Vector& a, float limit, int what) {
    return notes + (~(a > limit) & what);
  }
  static unsigned at_least(const Notes& notes, int what) {
    unsigned mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<unsigned>(notes[i] >= what) << i;
    return mask;
  }
  static float reduce_min(Vector a) {
    float m = a[0];
    for (int i = 1; i < kLanes; ++i) m = a[i] < m ? a[i] : m;
    return m;
  }
  static void transpose(const uint32_t* from, int64_t stride, int64_t words, uint32_t* to) {
    constexpr int codes = kLanes * kVectors;
    for (int64_t w = 0; w < words; ++w) {
      for (int j = 0; j < codes; ++j) to[w * codes + j] = from[j * stride + w];
    }
  }
};

}  // namespace
}  // namespace tokenizers_vq

#include "search.h"

TOKENIZERS_VQ_DEFINE_KERNEL(generic, Float32)
