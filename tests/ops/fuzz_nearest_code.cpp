// The CPU kernels without torch, so that sanitizers see every access: random shapes against a plain
// loop in double. Built and run by test_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>

#include "nearest_code.h"

namespace tokenizers_vq {
void parallel(int64_t count, Body body, void* context) {  // uneven pieces, backwards
  const int64_t middle = count / 3;
  if (middle < count) body(middle, count, context);
  if (middle > 0) body(0, middle, context);
}
}  // namespace tokenizers_vq

using namespace tokenizers_vq;

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
  std::mt19937 random(0);
  auto number = [&](int low, int high) {
    return low + static_cast<int>(random() % static_cast<unsigned>(high - low));
  };
  int chunked = 0;
  for (int i = 0; i < cases; ++i) {
    // Now and then a codebook too large to be kept: with few rows it is packed a chunk at a time.
    const bool large = i % 50 == 49;
    const int64_t rows = large ? number(1, i % 100 == 99 ? 140 : 20) : number(1, 50);
    const int64_t count = large ? number(8300, 9300) : number(1, 400);
    const int64_t width = large ? number(64, 90) : number(1, i % 10 ? 90 : 600);
    chunked += large;
    // Exact sizes on the heap: reading one number too far is an error.
    std::unique_ptr<float[]> x(new float[rows * width]), codes(new float[count * width]);
    std::unique_ptr<float[]> distance(new float[rows]);
    std::unique_ptr<int64_t[]> index(new int64_t[rows]);
    const bool coarse = number(0, 2);
    const int far = number(0, 4) ? 0 : number(0, 30);  // of all from the origin
    std::normal_distribution<float> normal(static_cast<float>(far));
    auto fill = [&](float* to, int64_t size) {
      for (int64_t j = 0; j < size; ++j) to[j] = coarse ? std::round(normal(random)) : normal(random);
    };
    fill(x.get(), rows * width);
    fill(codes.get(), count * width);
    if (number(0, 8) == 0) {  // repeated codes: next to each other, the first one, or all
      const int64_t from = number(0, 2) ? 0 : number(0, static_cast<int>(count));
      for (int64_t k = from + 1; k < count; k += number(1, 4))
        std::copy_n(&codes[from * width], width, &codes[k * width]);
    }
    if (number(0, 4) == 0) codes[number(0, static_cast<int>(count * width))] = NAN;
    const bool product = number(0, 3) == 0;
    search({x.get(), rows, width, {codes.get(), count, width, width, product}, distance.get(),
            index.get(), number(1, 3)});
    for (int64_t n = 0; n < rows; ++n) {
      double best = INFINITY;
      int64_t winner = 0;
      for (int64_t k = 0; k < count; ++k) {
        double sum = 0;
        for (int64_t d = 0; d < width; ++d) {
          const double a = x[n * width + d], c = codes[k * width + d];
          sum += product ? -a * c : (a - c) * (a - c);
        }
        if (sum < best) best = sum, winner = k;
      }
      if (index[n] != winner) {
        std::printf("wrong: %d rows %d codes %d width %d\n", i, (int)rows, (int)count, (int)width);
        return 1;
      }
    }
    std::unique_ptr<float[]> counts(new float[count]), sums(new float[count * width]);
    if (!code_stats(x.get(), rows, width, width, index.get(), count, counts.get(), sums.get())) {
      return 1;
    }
  }
  std::printf("%d shapes, %d of them with a large codebook: 0 wrong\n", cases, chunked);
  return 0;
}
