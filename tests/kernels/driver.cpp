// Runs the CUDA search on the CPU and compares every row with a float64 search, under all schedules.
// Usage: driver [quick|full|first]. Prints one line per failed run and a summary; exit status 1 if any failed.
// `first` stops at the first failure.
#include <cstdio>
#include <random>

#include "../../kernels/nearest_code/cuda/residual.cuh"

using namespace nearest_code;

struct Data {
  const char* name;
  int rows, codes, channels, row_stride;
  bool product;
  std::vector<float> x, codebook;
  std::vector<int64_t> expected;
  std::vector<float> value;
};

// The index of the winner; its squared distance or inner product goes to `value`.
int64_t winner(const float* x, const std::vector<float>& codebook, int channels, bool product, float& value) {
  const double infinite = std::numeric_limits<double>::infinity();
  double best = infinite;
  int64_t found = 0;
  for (size_t k = 0; k * channels < codebook.size(); k++) {
    double lane[8] = {};  // the order of the CPU kernels
    for (int d = 0; d < channels; d++) {
      const double mine = x[d], its = codebook[k * channels + d], e = mine - its;
      lane[d % 8] += product ? mine * its : e * e;
    }
    double sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    if (product) sum = -sum;
    if (sum < best && sum > -infinite) best = sum, found = k;
  }
  value = float(product ? -best : best);
  return found;
}

void solve(Data& data) {
  data.expected.resize(data.rows), data.value.resize(data.rows);
  for (int n = 0; n < data.rows; n++)
    data.expected[n] =
        winner(&data.x[size_t(n) * data.row_stride], data.codebook, data.channels, data.product, data.value[n]);
}

// Equal codes where an order could go wrong: same thread, same warp, other warp, other tile, other split.
void plant_ties(Data& data) {
  const int copies[] = {3, 4, 7, 19, 35, 67, 131, 259, data.codes - 1};
  const int chosen = std::min(3, data.codes - 1);
  for (int d = 0; d < data.channels && data.product; d++)  // the longest wins where rows point along it
    data.codebook[size_t(chosen) * data.channels + d] *= 4;
  for (int k : copies)
    if (k < data.codes)
      for (int d = 0; d < data.channels; d++)
        data.codebook[size_t(k) * data.channels + d] = data.codebook[size_t(chosen) * data.channels + d];
  for (int n = 5; n < data.rows; n += 9)
    for (int d = 0; d < data.channels; d++)
      data.x[size_t(n) * data.row_stride + d] = data.codebook[size_t(chosen) * data.channels + d] + (n % 2 ? 0.0f : 1e-3f);
}

Data make(const char* name, int rows, int codes, int channels, bool product = false) {
  Data data{name, rows, codes, channels, channels + rows % 3, product, {}, {}, {}, {}};
  std::mt19937 random(rows * 31 + codes * 7 + channels);
  std::normal_distribution<float> normal;
  const std::string kind = name;
  data.x.resize(size_t(rows) * data.row_stride);
  data.codebook.resize(size_t(codes) * channels);
  for (auto& v : data.x) v = normal(random);
  for (auto& v : data.codebook) v = normal(random);
  if (kind == "offset")
    for (auto* values : {&data.x, &data.codebook})
      for (auto& v : *values) v += 30;
  if (kind == "tiny codebook")
    for (auto& v : data.codebook) v /= float(codes);
  if (kind == "zero codebook")
    for (auto& v : data.codebook) v = 0;
  if (kind == "clustered")
    for (size_t i = 0; i < data.codebook.size(); i++)
      data.codebook[i] = data.codebook[i % (size_t(std::max(1, codes / 32)) * channels)] + 1e-3f * data.codebook[i];
  if (kind == "two points") {  // more candidates than a list holds, and a winner that may be any of them
    const std::vector<float> point(data.codebook.begin(), data.codebook.begin() + channels);
    for (size_t i = 0; i < data.codebook.size(); i++)
      data.codebook[i] = point[i % channels] * (i / channels % 2 ? 1 : -1) * (1 + 3e-7f * data.codebook[i]);
  }
  if (kind == "huge")
    for (auto& v : data.codebook) v *= 1e30f;
  if (kind == "minute")
    for (auto* values : {&data.x, &data.codebook})
      for (auto& v : *values) v *= 1e-25f;
  plant_ties(data);
  if (kind == "short rows")
    for (auto& v : data.x) v *= 1e-15f;
  if (kind == "not finite") {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    data.codebook[size_t(5) * channels] = nan;
    data.codebook[size_t(6) * channels] = inf;
    data.x[0] = nan;
    data.x[size_t(2) * data.row_stride] = -inf;
  }
  solve(data);
  return data;
}

struct Outcome {
  int wrong = 0, overflowed = 0;
  std::string error;
};

Problem problem_of(const Data& data, Filter filter, int splits) {
  Problem p;
  p.rows = data.rows, p.row_stride = data.row_stride, p.code_stride = data.channels;
  p.codes = data.codes, p.channels = data.channels, p.filter = filter, p.splits = splits, p.product = data.product;
  return p;
}

Outcome run(const Data& data, Filter filter, int splits) {
  const Problem p = problem_of(data, filter, splits);
  const Workspace at(p);
  // Exactly as large as promised, on their own, so that AddressSanitizer watches their ends.
  auto memory = simt::poisoned(at.bytes);
  std::vector<float> x = data.x, codebook = data.codebook, value(data.rows, -1);
  x.resize(size_t(data.rows - 1) * data.row_stride + data.channels), x.shrink_to_fit();
  std::vector<int64_t> index(data.rows, -1);
  Outcome outcome;
  try {
    if (!search(p, x.data(), codebook.data(), memory.get(), value.data(), index.data(), nullptr))
      outcome.error = "refused";
  } catch (const std::exception& e) {
    outcome.error = e.what();
  }
  for (int n = 0; n < data.rows; n++) outcome.wrong += index[n] != data.expected[n] || value[n] != data.value[n];
  const int* count = reinterpret_cast<const int*>(memory.get() + at.count);
  if (outcome.error.empty())
    for (int i = 0; i < data.rows * splits; i++) outcome.overflowed += count[i] > CANDIDATES;
  return outcome;
}

const char* const SCHEDULES[] = {"lockstep", "random", "forward", "reverse", "shuffled"};

struct Tally {
  int runs = 0, failed = 0;
  bool stop = false;

  void check(const Data& data, Filter filter, int splits, int schedule, simt::Copies copies) {
    simt::settings = {static_cast<simt::Schedule>(schedule), copies, 1};
    const Outcome outcome = run(data, filter, splits);
    runs++;
    // Ordinary numbers must be settled by the candidates: searching all codes again hides a broken filter.
    const bool ordinary = std::string(data.name) == "normal" || std::string(data.name) == "short rows";
    const bool bad = outcome.wrong || !outcome.error.empty() || (ordinary && outcome.overflowed * 20 > data.rows);
    failed += bad;
    if (bad)
      std::printf("FAILED %s%s N=%d K=%d D=%d %s splits=%d %s %s: %d wrong rows, %d overflowed, %s\n", data.name,
                  data.product ? ", product" : "", data.rows, data.codes, data.channels,
                  filter == Filter::Float32 ? "float32" : "bfloat16", splits, SCHEDULES[schedule],
                  copies == simt::Copies::Early ? "early" : "late", outcome.wrong, outcome.overflowed,
                  outcome.error.c_str());
    if (bad && stop) std::exit(1);
  }

  void check(const char* name, int wrong) {
    runs++;
    failed += wrong != 0;
    if (wrong) std::printf("FAILED %s: %d wrong\n", name, wrong);
    if (wrong && stop) std::exit(1);
  }
};

// How many codes of a stack differ from those found one by one, in float32 sums and float64 searches.
int stack(int rows, int channels, const std::vector<std::vector<float>>& books, const std::vector<float>& x, Filter filter) {
  const int64_t depth = static_cast<int64_t>(books.size()), row_stride = static_cast<int64_t>(x.size()) / rows;
  std::vector<Stage> stages;
  size_t bytes = 0;
  for (const auto& book : books) {
    Problem p;
    p.rows = rows, p.row_stride = row_stride, p.code_stride = channels, p.channels = channels, p.filter = filter;
    p.codes = static_cast<int>(book.size()) / channels, p.splits = static_cast<int>(stages.size()) % 2 + 1;
    stages.push_back({p, book.data()});
    bytes = std::max(bytes, Workspace(p).bytes);
  }
  auto memory = simt::poisoned(bytes);
  std::vector<float> sum(size_t(rows) * channels, NAN), rest(sum.size(), NAN);
  std::vector<int64_t> index(rows * depth, -1);
  if (!search_stack(stages.data(), depth, x.data(), sum.data(), rest.data(), memory.get(), index.data(), nullptr))
    return -1;
  int wrong = 0;
  for (int n = 0; n < rows; n++) {
    std::vector<float> total(channels, 0.0f), left(channels);
    for (int64_t m = 0; m < depth; m++) {
      float value;
      for (int d = 0; d < channels; d++) left[d] = x[n * row_stride + d] - total[d];
      const int64_t k = winner(left.data(), books[m], channels, false, value);
      wrong += index[n * depth + m] != k;
      for (int d = 0; d < channels; d++) total[d] += books[m][k * channels + d];
    }
  }
  return wrong;
}

void stacks(Tally& tally) {
  simt::settings = {simt::Schedule::Shuffled, simt::Copies::Late, 1};
  for (Filter filter : {Filter::Float32, Filter::Bfloat16}) {
    const Data first = make("normal", 40, 300, 35), second = make("normal", 40, 150, 35), third = make("offset", 40, 30, 35);
    tally.check("stack", stack(40, 35, {first.codebook, second.codebook, third.codebook}, first.x, filter));
    // x - (1e8 - 1e8) is x; x - 1e8 + 1e8 is 0, as float32: the order of the sums decides.
    tally.check("stack that cancels", stack(2, 1, {{1e8f}, {-1e8f}, {0, 1, 2}}, {1, 2}, filter));
  }
}

// Bytes the filter reads and writes, against the model, within 2 %: the codebook with its half norms once per
// block of 128 rows, and the rows once per split. Rows that stream are read again with each tile of codes, which
// is what blocks of 64 rows would cost, and are written once as bfloat16.
int traffic(Filter filter, int rows, int codes, int channels, int splits) {
  const Data data = make("normal", rows, codes, channels);
  const Problem p = problem_of(data, filter, splits);
  simt::settings = {simt::Schedule::Forward, simt::Copies::Early, 1};
  const Workspace at(p);
  auto memory = simt::poisoned(at.bytes);
  std::vector<float> distance(rows);
  std::vector<int64_t> index(rows);
  const double bytes = filter == Filter::Bfloat16 ? 2 : 4, blocks = double(p.row_blocks());
  const double again = p.streamed() ? blocks * codes * channels * bytes : 0;
  const double promised = blocks * codes * (channels * bytes + 4) + again + double(splits) * rows * channels * 4;
  search(p, data.x.data(), data.codebook.data(), memory.get(), distance.data(), index.data(), nullptr);
  // That filled the workspace; now the filter alone, counted.
  const FilterInput in = filter_input(p, data.x.data(), reinterpret_cast<unsigned char*>(memory.get()));
  simt::counters = {};
  nearest_code::filter(p, in, memory.get() + at.packed, nullptr);
  const double ratio = double(simt::counters.bytes_read) / promised;
  const double written = double(simt::counters.bytes_written) / (double(rows) * splits);
  const bool good = ratio > 0.98 && ratio < 1.02 && written <= 12 + 8 * CANDIDATES + (p.streamed() ? 2 * channels : 0);
  std::printf("%s traffic %s N=%d K=%d D=%d splits=%d: read %lld bytes, %.4f of promised; %.1f bytes written per row and split\n",
              good ? "ok" : "FAILED", filter == Filter::Float32 ? "float32" : "bfloat16", rows, codes, channels, splits,
              static_cast<long long>(simt::counters.bytes_read), ratio, written);
  return !good;
}

int main(int count, char** arguments) {
  const std::string mode = count > 1 ? arguments[1] : "quick";
  const bool full = mode == "full";
  Tally tally;
  tally.stop = mode == "first";
  constexpr Filter FILTERS[] = {Filter::Float32, Filter::Bfloat16};
  constexpr simt::Copies COPIES[] = {simt::Copies::Early, simt::Copies::Late};
  // Ragged on purpose: rows, codes and channels around the sizes of tiles and steps. Every kernel that keeps its
  // rows runs under every schedule with every copy timing and split, some with one step per tile, some with more.
  struct Shape {
    int rows, codes, channels;
    bool float32, bfloat16;
  };
  std::vector<Shape> shapes = {{20, 520, 8, true, true}, {37, 300, 40, true, false}, {21, 260, 20, false, true},
                               {40, 300, 70, false, true}};
  if (full)
    for (const Shape& more : {Shape{130, 389, 64, true, true}, {200, 1000, 5, true, true}, {66, 300, 256, false, true}})
      shapes.push_back(more);
  for (const Shape& s : shapes) {
    const Data data = make("normal", s.rows, s.codes, s.channels);
    for (Filter filter : FILTERS)
      if (filter == Filter::Float32 ? s.float32 : s.bfloat16)
        for (int schedule : {3, 1, 2, 4, 0})
          for (int splits : {1, 3})
            for (auto copies : COPIES) tally.check(data, filter, splits, schedule, copies);
  }
  // More rows than a block.
  for (Filter filter : FILTERS) tally.check(make("normal", 130, 131, 17), filter, 2, 1, simt::Copies::Late);
  // Rows that stream, under the schedules that find most.
  std::vector<Data> streams = {make("normal", 66, 300, 260)};
  if (full) streams.push_back(make("normal", 140, 140, 530));
  for (const Data& data : streams)
    for (int schedule : {1, 2, 3, 4})
      for (auto copies : COPIES)
        if (full || (schedule % 2 == 0) == (copies == simt::Copies::Early))
          tally.check(data, Filter::Bfloat16, schedule == 2 ? 3 : 1, schedule, copies);
  // Data that hurt.
  for (const char* name : {"offset", "tiny codebook", "zero codebook", "clustered", "huge", "minute", "not finite"})
    for (Filter filter : FILTERS) {
      tally.check(make(name, 12, 200, 16), filter, 1, 4, simt::Copies::Late);
      if (full) tally.check(make(name, 70, 700, 48), filter, 3, 2, simt::Copies::Late);
    }
  // 256 codes fit into a list of candidates: more of them, all within the margin.
  for (Filter filter : FILTERS) tally.check(make("two points", 12, 700, 16), filter, 1, 4, simt::Copies::Late);
  for (Filter filter : FILTERS) tally.check(make("normal", 1, 1, 1), filter, 3, 0, simt::Copies::Late);
  // Inner products: the same kernels, another start and another judge.
  for (Filter filter : FILTERS) {
    for (int schedule : {4, 1}) tally.check(make("normal", 37, 300, 20, true), filter, 3, schedule, simt::Copies::Late);
    for (const char* name : {"offset", "short rows", "zero codebook", "huge", "minute", "not finite", "two points"})
      tally.check(make(name, 12, 700, 16, true), filter, 1, 4, simt::Copies::Late);
  }
  tally.check(make("normal", 30, 140, 260, true), Filter::Bfloat16, 1, 4, simt::Copies::Late);
  stacks(tally);
  std::printf("%d runs, %d failed\n", tally.runs, tally.failed);
  int bad = tally.failed;
  if (mode != "first") {
    bad += traffic(Filter::Float32, 128, 512, 64, 1) + traffic(Filter::Float32, 128, 1024, 16, 3);
    bad += traffic(Filter::Bfloat16, 256, 512, 64, 1) + traffic(Filter::Bfloat16, 128, 512, 256, 2);
    bad += traffic(Filter::Bfloat16, 128, 512, 512, 1);
  }
  return bad != 0;
}
