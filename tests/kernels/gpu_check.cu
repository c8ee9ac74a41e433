// For a machine with a GPU: the search against a plain float64 search on the device, inside a CUDA graph, stacks
// of codebooks against the same, and times. Usage: gpu_check [correct|bench]. Built and run by scripts/gpu_check.sh.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../../kernels/nearest_code/cuda/residual.cuh"

using namespace nearest_code;

#define CHECK(call)                                                                     \
  do {                                                                                  \
    const cudaError_t error = (call);                                                   \
    if (error != cudaSuccess) {                                                         \
      std::printf("FAILED %s: %s\n", #call, cudaGetErrorString(error));                 \
      std::exit(1);                                                                     \
    }                                                                                   \
  } while (0)

// One thread per row, in the order of the CPU kernels.
__device__ double plain_value(const float* x, const float* code, int channels, bool product) {
  double lane[8] = {};
  for (int d = 0; d < channels; d++) {
    const double a = x[d], b = code[d];
    lane[d % 8] = __dadd_rn(lane[d % 8], product ? __dmul_rn(-a, b) : __dmul_rn(a - b, a - b));
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

__global__ void reference(const float* x, const float* codebook, int64_t rows, int codes, int channels, bool product,
                          float* value, int64_t* index) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  Nearest nearest;
  for (int k = 0; k < codes; k++)
    nearest.take(plain_value(x + row * channels, codebook + int64_t{k} * channels, channels, product), k);
  value[row] = static_cast<float>(product ? -nearest.value : nearest.value);
  index[row] = nearest.code == 0x7fffffff ? 0 : nearest.code;
}

template <class T>
struct Device {
  T* data = nullptr;
  explicit Device(size_t count) { CHECK(cudaMalloc(&data, count * sizeof(T))); }
  ~Device() { cudaFree(data); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
};

int wrong_rows = 0;

void check(int64_t rows, int codes, int channels, Filter filter, float offset, bool product, bool correct) {
  int device = 0, processors = 0;
  CHECK(cudaGetDevice(&device));
  CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  Problem p;
  p.rows = rows, p.row_stride = channels, p.code_stride = channels, p.codes = codes, p.channels = channels;
  p.filter = filter, p.product = product, p.splits = choose_splits(p, processors);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(offset, 1);
  std::vector<float> x(rows * channels), codebook(size_t(codes) * channels);
  for (auto& v : x) v = normal(random);
  for (auto& v : codebook) v = normal(random);
  for (int d = 0; d < channels; d++) codebook[size_t(codes - 1) * channels + d] = codebook[d];
  for (int d = 0; d < channels; d++) x[d] = codebook[d];  // a tie of the first and the last code

  Device<float> dx(x.size()), dc(codebook.size()), value(rows), expected_value(rows);
  Device<int64_t> index(rows), expected(rows);
  Device<unsigned char> memory(Workspace(p).bytes);
  CHECK(cudaMemcpy(dx.data, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(dc.data, codebook.data(), codebook.size() * 4, cudaMemcpyHostToDevice));

  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t program;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  if (!search(p, dx.data, dc.data, memory.data, value.data, index.data, stream)) std::printf("FAILED refused\n"), std::exit(1);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&program, graph, 0));
  cudaEvent_t start, stop;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&stop));
  const int repeats = correct ? 1 : 20;
  CHECK(cudaGraphLaunch(program, stream));
  CHECK(cudaEventRecord(start, stream));
  for (int i = 0; i < repeats; i++) CHECK(cudaGraphLaunch(program, stream));
  CHECK(cudaEventRecord(stop, stream));
  CHECK(cudaStreamSynchronize(stream));
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, start, stop));

  int wrong = 0;
  if (correct) {
    reference<<<static_cast<unsigned>((rows + 127) / 128), 128>>>(dx.data, dc.data, rows, codes, channels, product,
                                                                  expected_value.data, expected.data);
    CHECK(cudaDeviceSynchronize());
    std::vector<int64_t> got(rows), want(rows);
    std::vector<float> near(rows), far(rows);
    CHECK(cudaMemcpy(got.data(), index.data, rows * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(want.data(), expected.data, rows * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(near.data(), value.data, rows * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(far.data(), expected_value.data, rows * 4, cudaMemcpyDeviceToHost));
    for (int64_t n = 0; n < rows; n++) wrong += got[n] != want[n] || near[n] != far[n];
  }
  wrong_rows += wrong;
  std::printf("| %lld | %d | %d | %s | %s | %g | %d | %.1f | %.1f | %s |\n", static_cast<long long>(rows), codes,
              channels, filter == Filter::Float32 ? "float32" : "bfloat16", product ? "product" : "distance",
              double(offset), p.splits,
              1e3 * milliseconds / repeats, 2.0 * rows * codes * channels * repeats / (milliseconds * 1e9),
              correct ? std::to_string(wrong).c_str() : "not asked");
  CHECK(cudaGraphExecDestroy(program));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
}

// Three codebooks, one after the other; what the stages leave is followed on the host.
void check_stack(int64_t rows, int codes, int channels) {
  constexpr int DEPTH = 3;
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * channels), rest(x.size()), sum(x.size(), 0.0f), book(size_t(codes) * channels);
  for (auto& v : x) v = normal(random);
  for (auto& v : book) v = normal(random);
  Problem p;
  p.rows = rows, p.row_stride = channels, p.code_stride = channels, p.codes = codes, p.channels = channels;
  Device<float> dx(x.size()), db(book.size()), dsum(x.size()), drest(x.size()), value(rows);
  Device<int64_t> index(rows * DEPTH), expected(rows);
  Device<unsigned char> memory(Workspace(p).bytes);
  CHECK(cudaMemcpy(dx.data, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(db.data, book.data(), book.size() * 4, cudaMemcpyHostToDevice));
  const Stage stages[DEPTH] = {{p, db.data}, {p, db.data}, {p, db.data}};
  if (!search_stack(stages, DEPTH, dx.data, dsum.data, drest.data, memory.data, index.data, nullptr))
    std::printf("FAILED refused\n"), std::exit(1);
  std::vector<int64_t> got(rows * DEPTH), want(rows);
  CHECK(cudaMemcpy(got.data(), index.data, got.size() * 8, cudaMemcpyDeviceToHost));
  int wrong = 0;
  for (int m = 0; m < DEPTH; m++) {
    for (size_t i = 0; i < x.size(); i++) rest[i] = x[i] - sum[i];
    CHECK(cudaMemcpy(drest.data, rest.data(), rest.size() * 4, cudaMemcpyHostToDevice));
    reference<<<static_cast<unsigned>((rows + 127) / 128), 128>>>(drest.data, db.data, rows, codes, channels, false,
                                                                  value.data, expected.data);
    CHECK(cudaMemcpy(want.data(), expected.data, rows * 8, cudaMemcpyDeviceToHost));
    for (int64_t n = 0; n < rows; n++) {
      wrong += got[n * DEPTH + m] != want[n];
      for (int d = 0; d < channels; d++) sum[n * channels + d] += book[want[n] * channels + d];
    }
  }
  wrong_rows += wrong;
  std::printf("stack of %d, %lld rows, %d codes, %d channels: %d wrong\n", DEPTH, static_cast<long long>(rows), codes,
              channels, wrong);
}

int main(int count, char** arguments) {
  const bool correct = count < 2 || std::string(arguments[1]) == "correct";
  std::printf("| rows | codes | channels | filter | asked | offset | splits | us | TFLOP/s | wrong rows |\n"
              "|---|---|---|---|---|---|---|---|---|---|\n");
  const int shapes[][3] = {{65536, 1024, 8}, {65536, 8192, 32}, {65536, 8192, 64}, {65536, 16384, 256}, {512, 262144, 64}};
  const int ragged[][3] = {{1, 1, 1}, {131, 389, 19}, {1000, 1000, 64}, {77, 3000, 260}, {200, 500, 530}, {20000, 1024, 8}};
  for (const auto& s : shapes)
    for (Filter filter : {Filter::Float32, Filter::Bfloat16})
      if (!correct && (filter == Filter::Bfloat16 || s[2] <= FLOAT32_CHANNELS))
        check(s[0], s[1], s[2], filter, 0, false, false);
  for (const auto& s : ragged)
    for (Filter filter : {Filter::Float32, Filter::Bfloat16})
      for (float offset : {0.0f, 30.0f})
        for (bool product : {false, true})
          if (correct && (filter == Filter::Bfloat16 || s[2] <= FLOAT32_CHANNELS))
            check(s[0], s[1], s[2], filter, offset, product, true);
  if (correct) check_stack(200, 300, 19), check_stack(70, 500, 300);
  return wrong_rows != 0;
}
