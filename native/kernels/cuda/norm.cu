// The passes between matrix products: group normalization with all that follows it, and layer normalization.
//
// Group normalization is three kernels: sums of chunks of pixels, statistics and from them a factor and an offset for
// every channel, and the pass over the image itself. Sums are of differences from a pivot, a value of the group itself:
// without it the difference of a mean of squares and a squared mean would have no digits left where the mean is large.
#include "kernels/cuda/common.h"
#include "kernels/cuda/kernels.h"

namespace kandinsky::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kChunkValues = 16384;  // of one block that adds up
constexpr int kMaxChunks = 1024;

struct Moments {
  float sum, square;  // of differences from the pivot
};

struct Scratch {
  Moments* moments;              // [batch][groups][chunks]
  float *mean, *factor, *offset;  // [batch][channels]: y = (x - mean) * factor + offset
};

__host__ __device__ inline int channels_of(const PrepareArgs& a) { return a.channels[0] + a.channels[1]; }
__host__ __device__ inline int chunk_pixels(const PrepareArgs& a) {
  return max_of(ceil_div(kChunkValues, channels_of(a)), ceil_div(a.height * a.width, kMaxChunks));
}
__host__ __device__ inline int chunk_count(const PrepareArgs& a) { return ceil_div(a.height * a.width, chunk_pixels(a)); }

Scratch layout(const PrepareArgs& a, Arena& arena) {
  Scratch s = {};
  const size_t channels = static_cast<size_t>(a.batch) * channels_of(a);
  if (a.groups > 0) s.moments = arena.take<Moments>(static_cast<size_t>(a.batch) * a.groups * chunk_count(a));
  s.mean = arena.take<float>(channels);
  s.factor = arena.take<float>(channels);
  s.offset = arena.take<float>(channels);
  return s;
}

__device__ inline float source_value(const PrepareArgs& a, int64_t pixel, int c) {
  return c < a.channels[0] ? a.src[0][pixel * a.channels[0] + c] : a.src[1][pixel * a.channels[1] + c - a.channels[0]];
}

__device__ inline float pivot_of(const PrepareArgs& a, int batch, int group) {
  return source_value(a, static_cast<int64_t>(batch) * a.height * a.width, group * (channels_of(a) / a.groups));
}

/// Threads side by side over the channels, and where there are fewer of those, over pixels too.
__host__ __device__ inline int channel_threads(const PrepareArgs& a) {
  int threads = 32;
  while (threads < kThreads && threads < channels_of(a)) threads *= 2;
  return threads;
}

/// Block (chunk, batch).
__global__ void __launch_bounds__(kThreads) add_moments(const PrepareArgs a, Moments* moments) {
  Moments* const per_channel = reinterpret_cast<Moments*>(shared_memory());  // [channels][lines]
  const int channels = channels_of(a), size = channels / a.groups, columns = channel_threads(a), lines = kThreads / columns;
  const int column = threadIdx.x % columns, line = threadIdx.x / columns, batch = blockIdx.y, pixels = a.height * a.width;
  const int first = blockIdx.x * chunk_pixels(a), end = min_of(pixels, first + chunk_pixels(a));
  for (int c = column; c < channels; c += columns) {
    const float pivot = pivot_of(a, batch, c / size);
    Moments m = {};
#pragma unroll 4
    for (int p = first + line; p < end; p += lines) {
      const float x = source_value(a, static_cast<int64_t>(batch) * pixels + p, c) - pivot;
      m.sum += x;
      m.square = fmaf(x, x, m.square);
    }
    per_channel[c * lines + line] = m;
  }
  __syncthreads();
  const int lane = threadIdx.x % 32, chunks = chunk_count(a);
  for (int group = threadIdx.x / 32; group < a.groups; group += kWarps) {
    Moments m = {};
    for (int i = group * size * lines + lane; i < (group + 1) * size * lines; i += 32) {
      m.sum += per_channel[i].sum;
      m.square += per_channel[i].square;
    }
    m = {warp_sum(m.sum), warp_sum(m.square)};
    if (lane == 0) moments[(static_cast<int64_t>(batch) * a.groups + group) * chunks + blockIdx.x] = m;
  }
}

struct Sums {
  double sum, square;
};

/// Of all chunks of one group and sample, in every thread.
__device__ Sums add_chunks(const PrepareArgs& a, const Moments* moments, int batch, int group) {
  Sums* const sums = reinterpret_cast<Sums*>(shared_memory());  // [kThreads]
  const int chunks = chunk_count(a);
  Sums mine = {};
  for (int i = threadIdx.x; i < chunks; i += kThreads) {
    const Moments m = moments[(static_cast<int64_t>(batch) * a.groups + group) * chunks + i];
    mine.sum += m.sum;
    mine.square += m.square;
  }
  sums[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) {
      sums[threadIdx.x].sum += sums[threadIdx.x + half].sum;
      sums[threadIdx.x].square += sums[threadIdx.x + half].square;
    }
  }
  __syncthreads();
  return sums[0];
}

/// Block (group, batch): the factor and offset of its channels. Without a norm there is one group, of all.
__global__ void __launch_bounds__(kThreads) find_factors(const PrepareArgs a, const Scratch s) {
  const int group = blockIdx.x, batch = blockIdx.y, channels = channels_of(a), size = a.groups ? channels / a.groups : channels;
  float mean = 0, rstd = 1;
  if (a.sums) {
    const double count = static_cast<double>(size) * a.pixels, average = a.sums[2 * group] / count;
    mean = static_cast<float>(average);
    rstd = rsqrt_fast(static_cast<float>(a.sums[2 * group + 1] / count - average * average) + a.eps);
  } else if (a.groups) {
    const Sums sums = add_chunks(a, s.moments, batch, group);
    const double count = static_cast<double>(size) * a.height * a.width, average = sums.sum / count;
    mean = static_cast<float>(pivot_of(a, batch, group) + average);
    rstd = rsqrt_fast(static_cast<float>(sums.square / count - average * average) + a.eps);
  }
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const int c = group * size + i;
    float factor = rstd * (a.gamma ? a.gamma[c] : 1), offset = a.beta ? a.beta[c] : 0;
    if (a.scale) {
      const float scale = 1 + a.scale[batch * a.modulation_stride + c];
      factor *= scale;
      offset = fmaf(offset, scale, a.shift[batch * a.modulation_stride + c]);
    }
    const int64_t index = static_cast<int64_t>(batch) * channels + c;
    s.mean[index] = mean;
    s.factor[index] = factor;
    s.offset[index] = offset;
  }
}

/// Block (group): sums and sums of squares of the values themselves, as PrepareArgs::sums has them.
__global__ void __launch_bounds__(kThreads) write_sums(const PrepareArgs a, const Moments* moments) {
  const Sums sums = add_chunks(a, moments, 0, blockIdx.x);
  if (threadIdx.x != 0) return;
  const double pivot = pivot_of(a, 0, blockIdx.x);
  const double count = static_cast<double>(channels_of(a) / a.groups) * a.height * a.width;
  double* const dst = static_cast<double*>(a.dst) + 2 * blockIdx.x;
  const double* const before = a.sums ? a.sums + 2 * blockIdx.x : nullptr;
  dst[0] = sums.sum + count * pivot + (before ? before[0] : 0);
  dst[1] = sums.square + 2 * pivot * sums.sum + count * pivot * pivot + (before ? before[1] : 0);
}

/// kVector channels from `c` on of a pixel of the source, ready but for resampling. Vectors of 4 lie in one source.
template <int kVector>
__device__ inline void prepared(const PrepareArgs& a, const Scratch& s, bool has_factors, int batch, int y, int x, int c, float (&v)[kVector]) {
  const int channels = channels_of(a);
  const int64_t pixel = (static_cast<int64_t>(batch) * a.height + y) * a.width + x;
  if constexpr (kVector == 4) {
    const int source = c < a.channels[0] ? 0 : 1;
    const float* src = a.src[source] + pixel * a.channels[source] + c - source * a.channels[0];
    const float4 values = *reinterpret_cast<const float4*>(src);
    v[0] = values.x, v[1] = values.y, v[2] = values.z, v[3] = values.w;
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if (kVector != 4) v[i] = c + i < channels ? source_value(a, pixel, c + i) : 0;
    if (c + i >= channels) continue;
    if (has_factors) {
      const int64_t index = static_cast<int64_t>(batch) * channels + c + i;
      v[i] = fmaf(v[i] - s.mean[index], s.factor[index], s.offset[index]);
    }
    if (a.spatial_scale) {
      const int sy = y / (a.height / a.spatial_height), sx = x / (a.width / a.spatial_width);
      const int64_t index = ((static_cast<int64_t>(batch) * a.spatial_height + sy) * a.spatial_width + sx) * channels + c + i;
      v[i] = fmaf(v[i], a.spatial_scale[index], a.spatial_shift[index]);
    }
    if (a.silu) v[i] = silu(v[i]);
  }
}

struct Extent {
  int height, width;  // of the result, border included
};

__host__ __device__ inline Extent extent_of(const PrepareArgs& a) {
  const auto resampled = [&](int size) {
    return a.resample == Resample::nearest_2x ? 2 * size : a.resample == Resample::avg_pool_2x2 ? size / 2 : size;
  };
  return {resampled(a.height) + 2 * a.pad, resampled(a.width) + 2 * a.pad};
}

/// Blocks (row of the result in the batch, part of the row): each thread kVector channels of a pixel.
template <int kVector>
__global__ void __launch_bounds__(kThreads) write_image(const PrepareArgs a, const Scratch s, bool has_factors) {
  const Extent extent = extent_of(a);
  const int vectors = ceil_div(channels_of(a), kVector), i = blockIdx.y * kThreads + threadIdx.x;
  if (i >= extent.width * vectors) return;
  const int batch = blockIdx.x / extent.height, y = static_cast<int>(blockIdx.x) % extent.height - a.pad;
  const int x = i / vectors - a.pad, c = i % vectors * kVector;
  float v[kVector] = {};
  if (y >= 0 && y < extent.height - 2 * a.pad && x >= 0 && x < extent.width - 2 * a.pad) {
    if (a.resample == Resample::avg_pool_2x2) {
      for (int corner = 0; corner < 4; ++corner) {
        float part[kVector];
        prepared<kVector>(a, s, has_factors, batch, 2 * y + corner / 2, 2 * x + corner % 2, c, part);
        for (int j = 0; j < kVector; ++j) v[j] += 0.25f * part[j];
      }
    } else {
      const int shrink = a.resample == Resample::nearest_2x ? 2 : 1;
      prepared<kVector>(a, s, has_factors, batch, y / shrink, x / shrink, c, v);
    }
  }
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * extent.width + i / vectors) * (vectors * kVector) + c;
#pragma unroll
  for (int j = 0; j < kVector; j += 2) {
    if (a.f32_dst) {
      *reinterpret_cast<float2*>(static_cast<float*>(a.dst) + index + j) = {v[j], v[j + 1]};
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(a.dst) + index + j) = pack_bf16(v[j], v[j + 1]);
    }
  }
}

/// A warp for each row.
__global__ void __launch_bounds__(kThreads) layer_norm_kernel(const LayerNormArgs a) {
  const int row = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= a.rows) return;
  const float* const src = a.src + static_cast<int64_t>(row) * a.features;
  const float pivot = src[0];
  Moments m = {};
  for (int c = lane; c < a.features; c += 32) {
    const float x = src[c] - pivot;
    m.sum += x;
    m.square = fmaf(x, x, m.square);
  }
  const float average = warp_sum(m.sum) / a.features;
  const float rstd = rsqrt_fast(fmaxf(warp_sum(m.square) / a.features - average * average, 0) + a.eps);
  const float mean = pivot + average;
  const auto normalized = [&](int c) { return fmaf((src[c] - mean) * rstd, a.gamma ? a.gamma[c] : 1, a.beta ? a.beta[c] : 0); };
  if (a.f32_dst) {
    float* const dst = static_cast<float*>(a.dst) + static_cast<int64_t>(row) * a.features;
    for (int c = lane; c < a.features; c += 32) dst[c] = normalized(c);
  } else {
    const int pairs = ceil_div(a.features, 2);
    uint32_t* const dst = static_cast<uint32_t*>(a.dst) + static_cast<int64_t>(row) * pairs;
    for (int i = lane; i < pairs; i += 32) dst[i] = pack_bf16(normalized(2 * i), 2 * i + 1 < a.features ? normalized(2 * i + 1) : 0.0f);
  }
}

// ---- on the host ---------------------------------------------------------------------------------------------------

unsigned count_of(int count) { return static_cast<unsigned>(count); }

void launch_moments(const PrepareArgs& a, Moments* moments, void* stream) {
  const int lines = kThreads / channel_threads(a);
  const size_t shared = static_cast<size_t>(channels_of(a)) * lines * sizeof(Moments);
  launch(add_moments, {count_of(chunk_count(a)), count_of(a.batch)}, kThreads, shared, stream, a, moments);
}

}  // namespace

size_t prepare_scratch(const PrepareArgs* args, int) {
  Arena arena{nullptr, 0};
  layout(*args, arena);
  return arena.used;
}

void prepare(const PrepareArgs* args, WorkContext* work, int ith, int) {
  if (ith != 0) return;
  const PrepareArgs& a = *args;
  Arena arena{work->scratch, 0};
  const Scratch scratch = layout(a, arena);
  if (a.groups > 0 && !a.sums) launch_moments(a, scratch.moments, work->stream);
  const bool has_factors = a.groups > 0 || a.scale;
  if (has_factors) {
    launch(find_factors, {count_of(max_of(a.groups, 1)), count_of(a.batch)}, kThreads, kThreads * sizeof(Sums), work->stream, a, scratch);
  }
  const Extent extent = extent_of(a);
  const bool wide = a.channels[0] % 4 == 0 && a.channels[1] % 4 == 0;
  const int vectors = ceil_div(channels_of(a), wide ? 4 : 2);
  const Grid grid = {count_of(a.batch * extent.height), count_of(ceil_div(extent.width * vectors, kThreads))};
  launch(wide ? write_image<4> : write_image<2>, grid, kThreads, 0, work->stream, a, scratch, has_factors);
}

void group_sums(const PrepareArgs* args, WorkContext* work, int ith, int) {
  if (ith != 0) return;
  Arena arena{work->scratch, 0};
  const Scratch scratch = layout(*args, arena);
  launch_moments(*args, scratch.moments, work->stream);
  launch(write_sums, {count_of(args->groups)}, kThreads, kThreads * sizeof(Sums), work->stream, *args, scratch.moments);
}

void layer_norm(const LayerNormArgs* args, WorkContext* work, int ith, int) {
  if (ith != 0) return;
  launch(layer_norm_kernel, {count_of(ceil_div(args->rows, kWarps))}, kThreads, 0, work->stream, *args);
}

}  // namespace kandinsky::cuda
