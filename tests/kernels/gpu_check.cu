// For a machine with a GPU: the search against a plain float64 search on the device, inside a CUDA graph,
// and its times. Usage: gpu_check [correct|bench]. Built and run by scripts/gpu_check.sh.
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../../kernels/nearest_code/cuda/nearest_code.cuh"

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
__device__ double plain_distance(const float* x, const float* code, int channels) {
  double lane[8] = {};
  for (int d = 0; d < channels; d++) {
    const double e = double(x[d]) - double(code[d]);
    lane[d % 8] = __dadd_rn(lane[d % 8], __dmul_rn(e, e));
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

__global__ void reference(const float* x, const float* codebook, int64_t rows, int codes, int channels, float* distance,
                          int64_t* index) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  Nearest nearest;
  for (int k = 0; k < codes; k++)
    nearest.take(plain_distance(x + row * channels, codebook + int64_t{k} * channels, channels), k);
  distance[row] = static_cast<float>(nearest.distance);
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

void measure(int64_t rows, int codes, int channels, Filter filter, float offset, bool correct) {
  int device = 0, processors = 0;
  CHECK(cudaGetDevice(&device));
  CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  Problem p;
  p.rows = rows, p.row_stride = channels, p.code_stride = channels, p.codes = codes, p.channels = channels;
  p.filter = filter, p.splits = choose_splits(p, processors);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(offset, 1);
  std::vector<float> x(rows * channels), codebook(size_t(codes) * channels);
  for (auto& v : x) v = normal(random);
  for (auto& v : codebook) v = normal(random);
  for (int d = 0; d < channels; d++) codebook[size_t(codes - 1) * channels + d] = codebook[d];
  for (int d = 0; d < channels; d++) x[d] = codebook[d];  // a tie of the first and the last code

  Device<float> dx(x.size()), dc(codebook.size()), distance(rows), expected_distance(rows);
  Device<int64_t> index(rows), expected(rows);
  Device<unsigned char> memory(Workspace(p).bytes);
  CHECK(cudaMemcpy(dx.data, x.data(), x.size() * 4, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(dc.data, codebook.data(), codebook.size() * 4, cudaMemcpyHostToDevice));

  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t program;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  if (!search(p, dx.data, dc.data, memory.data, distance.data, index.data, stream)) std::printf("FAILED refused\n"), std::exit(1);
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
    reference<<<static_cast<unsigned>((rows + 127) / 128), 128>>>(dx.data, dc.data, rows, codes, channels,
                                                                  expected_distance.data, expected.data);
    CHECK(cudaDeviceSynchronize());
    std::vector<int64_t> got(rows), want(rows);
    std::vector<float> near(rows), far(rows);
    CHECK(cudaMemcpy(got.data(), index.data, rows * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(want.data(), expected.data, rows * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(near.data(), distance.data, rows * 4, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(far.data(), expected_distance.data, rows * 4, cudaMemcpyDeviceToHost));
    for (int64_t n = 0; n < rows; n++) wrong += got[n] != want[n] || near[n] != far[n];
  }
  wrong_rows += wrong;
  std::printf("| %lld | %d | %d | %s | %g | %d | %.1f | %.1f | %s |\n", static_cast<long long>(rows), codes, channels,
              filter == Filter::Float32 ? "float32" : "bfloat16", double(offset), p.splits,
              1e3 * milliseconds / repeats, 2.0 * rows * codes * channels * repeats / (milliseconds * 1e9),
              correct ? std::to_string(wrong).c_str() : "not asked");
  CHECK(cudaGraphExecDestroy(program));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
}

int main(int count, char** arguments) {
  const bool correct = count < 2 || std::string(arguments[1]) == "correct";
  std::printf("| rows | codes | channels | filter | offset | splits | us | TFLOP/s | wrong rows |\n|---|---|---|---|---|---|---|---|---|\n");
  const int shapes[][3] = {{65536, 1024, 8}, {65536, 8192, 32}, {65536, 8192, 64}, {65536, 16384, 256}, {512, 262144, 64}};
  const int ragged[][3] = {{1, 1, 1}, {131, 389, 19}, {1000, 1000, 64}, {77, 3000, 260}, {200, 500, 530}, {20000, 1024, 8}};
  if (correct)
    for (const auto& s : ragged)
      for (float offset : {0.0f, 30.0f}) {
        if (s[2] <= FLOAT32_CHANNELS) measure(s[0], s[1], s[2], Filter::Float32, offset, true);
        measure(s[0], s[1], s[2], Filter::Bfloat16, offset, true);
      }
  else
    for (const auto& s : shapes) {
      if (s[2] <= FLOAT32_CHANNELS) measure(s[0], s[1], s[2], Filter::Float32, 0, false);
      measure(s[0], s[1], s[2], Filter::Bfloat16, 0, false);
    }
  return wrong_rows != 0;
}
