#include "kernels/reference.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace kandinsky::reference {

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double activate(double x, Activation activation) {
  switch (activation) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::quick_gelu: return x * sigmoid(1.702 * x);
    case Activation::none: break;
  }
  return x;
}

double half(const unsigned char* p) {
  const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? (fraction ? NAN : INFINITY)
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

int nibble(const unsigned char* bytes, int i, bool high) { return high ? bytes[i] >> 4 : bytes[i] & 15; }
int bit(const unsigned char* bytes, int i) { return bytes[i / 8] >> i % 8 & 1; }

// Value `i` of a block.
double f16_value(const unsigned char* block, int) { return half(block); }
double bf16_value(const unsigned char* block, int) {
  const uint32_t bits = static_cast<uint32_t>(block[0] | block[1] << 8) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
double q8_0_value(const unsigned char* block, int i) { return half(block) * static_cast<signed char>(block[2 + i]); }
double q4_0_value(const unsigned char* block, int i) { return half(block) * (nibble(block + 2, i % 16, i >= 16) - 8); }
double q5_0_value(const unsigned char* block, int i) {
  return half(block) * ((nibble(block + 6, i % 16, i >= 16) | bit(block + 2, i) << 4) - 16);
}

/// A quant of a q4_K or q5_K block on the scale of its group of 32.
double grouped_value(const unsigned char* block, int group, int quant) {
  const unsigned char* s = block + 4;
  const int scale = group < 4 ? s[group] & 63 : (s[group + 4] & 15) | s[group - 4] >> 6 << 4;
  const int minimum = group < 4 ? s[group + 4] & 63 : s[group + 4] >> 4 | s[group] >> 6 << 4;
  return half(block) * scale * quant - half(block + 2) * minimum;
}
double q4_k_value(const unsigned char* block, int i) {
  const int group = i / 32;
  return grouped_value(block, group, nibble(block + 16 + 32 * (group / 2), i % 32, group % 2));
}
double q5_k_value(const unsigned char* block, int i) {
  const int group = i / 32, fifth = block[16 + i % 32] >> group & 1;
  return grouped_value(block, group, nibble(block + 48 + 32 * (group / 2), i % 32, group % 2) | fifth << 4);
}
double q6_k_value(const unsigned char* block, int i) {
  const int part = i / 128, group = i % 128 / 32, j = i % 32;
  const int low = nibble(block + 64 * part + 32 * (group % 2), j, group >= 2);
  const int high = block[128 + 32 * part + j] >> 2 * group & 3;
  return half(block + 208) * static_cast<signed char>(block[192 + i / 16]) * ((low | high << 4) - 32);
}

template <int block_values, int block_bytes, double (*value)(const unsigned char*, int)>
void expand_row(const void* row, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const auto* block = static_cast<const unsigned char*>(row) + i / block_values * block_bytes;
    values[i] = static_cast<float>(value(block, static_cast<int>(i % block_values)));
  }
}

/// Mean and 1 / deviation of one group of one sample.
struct GroupStatistics {
  double mean = 0, rstd = 0;
};

double source_value(const PrepareArgs& a, int b, int y, int x, int c) {
  const int source = c < a.channels[0] ? 0 : 1, channel = source ? c - a.channels[0] : c;
  return a.src[source][((static_cast<int64_t>(b) * a.height + y) * a.width + x) * a.channels[source] + channel];
}

GroupStatistics statistics(const PrepareArgs& a, int b, int group) {
  const int size = (a.channels[0] + a.channels[1]) / a.groups;
  const double count = static_cast<double>(size) * a.height * a.width;
  double sum = 0, square = 0;
  for (int y = 0; y < a.height; ++y)
    for (int x = 0; x < a.width; ++x)
      for (int c = group * size; c < (group + 1) * size; ++c) sum += source_value(a, b, y, x, c);
  for (int y = 0; y < a.height; ++y)
    for (int x = 0; x < a.width; ++x)
      for (int c = group * size; c < (group + 1) * size; ++c) {
        const double d = source_value(a, b, y, x, c) - sum / count;
        square += d * d;
      }
  return {sum / count, 1 / std::sqrt(square / count + a.eps)};
}

double prepared_value(const PrepareArgs& a, const std::vector<GroupStatistics>& groups, int b, int y, int x, int c) {
  const int channels = a.channels[0] + a.channels[1];
  double value = source_value(a, b, y, x, c);
  if (a.groups > 0) {
    const GroupStatistics& g = groups[b * a.groups + c / (channels / a.groups)];
    value = (value - g.mean) * g.rstd * (a.gamma ? a.gamma[c] : 1) + (a.beta ? a.beta[c] : 0);
  }
  if (a.scale) value = value * (1.0 + a.scale[b * a.modulation_stride + c]) + a.shift[b * a.modulation_stride + c];
  if (a.spatial_scale) {
    const int sy = y * a.spatial_height / a.height, sx = x * a.spatial_width / a.width;
    const int64_t i = ((static_cast<int64_t>(b) * a.spatial_height + sy) * a.spatial_width + sx) * channels + c;
    value = value * a.spatial_scale[i] + a.spatial_shift[i];
  }
  return a.silu ? value * sigmoid(value) : value;
}

}  // namespace

ExpandRow expander(StoredType type) {
  switch (type) {
    case StoredType::f32: return nullptr;
    case StoredType::f16: return expand_row<1, 2, f16_value>;
    case StoredType::bf16: return expand_row<1, 2, bf16_value>;
    case StoredType::q8_0: return expand_row<32, 34, q8_0_value>;
    case StoredType::q6_k: return expand_row<256, 210, q6_k_value>;
    case StoredType::q5_k: return expand_row<256, 176, q5_k_value>;
    case StoredType::q4_k: return expand_row<256, 144, q4_k_value>;
    case StoredType::q5_0: return expand_row<32, 22, q5_0_value>;
    case StoredType::q4_0: return expand_row<32, 18, q4_0_value>;
  }
  return nullptr;
}

void conv(const float* src, int batch, int src_height, int src_width, int in, const float* weights, int out, int kernel,
          int stride, int pad, int height, int width, const float* bias, const float* residual, float* dst) {
  for (int b = 0; b < batch; ++b)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        for (int o = 0; o < out; ++o) {
          double sum = bias ? bias[o] : 0;
          for (int ky = 0; ky < kernel; ++ky)
            for (int kx = 0; kx < kernel; ++kx) {
              const int sy = y * stride + ky - pad, sx = x * stride + kx - pad;
              if (sy < 0 || sy >= src_height || sx < 0 || sx >= src_width) continue;
              const float* pixel = src + ((static_cast<int64_t>(b) * src_height + sy) * src_width + sx) * in;
              const float* taps = weights + ((static_cast<int64_t>(o) * kernel + ky) * kernel + kx) * in;
              for (int c = 0; c < in; ++c) sum += static_cast<double>(pixel[c]) * taps[c];
            }
          const int64_t index = ((static_cast<int64_t>(b) * height + y) * width + x) * out + o;
          dst[index] = static_cast<float>(sum + (residual ? residual[index] : 0));
        }
}

void gemm(const float* src, int rows, int in, const float* weights, int out, const float* bias, Activation activation,
          const float* residual, float* dst) {
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < out; ++o) {
      double sum = bias ? bias[o] : 0;
      for (int k = 0; k < in; ++k) sum += static_cast<double>(src[r * in + k]) * weights[o * in + k];
      dst[r * out + o] = static_cast<float>(activate(sum, activation) + (residual ? residual[r * out + o] : 0));
    }
}

void prepare(const PrepareArgs& a, float* dst) {
  const int channels = a.channels[0] + a.channels[1], stride = even(channels);
  const bool pool = a.resample == Resample::avg_pool_2x2, grow = a.resample == Resample::nearest_2x;
  const int height = pool ? a.height / 2 : grow ? a.height * 2 : a.height;
  const int width = pool ? a.width / 2 : grow ? a.width * 2 : a.width;
  std::vector<GroupStatistics> groups;
  for (int i = 0; i < a.batch * a.groups; ++i) groups.push_back(statistics(a, i / a.groups, i % a.groups));
  for (int b = 0; b < a.batch; ++b)
    for (int y = -a.pad; y < height + a.pad; ++y)
      for (int x = -a.pad; x < width + a.pad; ++x)
        for (int c = 0; c < stride; ++c) {
          double value = 0;
          if (y >= 0 && y < height && x >= 0 && x < width && c < channels) {
            if (pool) {
              for (int i = 0; i < 4; ++i) value += 0.25 * prepared_value(a, groups, b, 2 * y + i / 2, 2 * x + i % 2, c);
            } else {
              value = prepared_value(a, groups, b, grow ? y / 2 : y, grow ? x / 2 : x, c);
            }
          }
          *dst++ = static_cast<float>(value);
        }
}

void layer_norm(const LayerNormArgs& a, float* dst) {
  for (int r = 0; r < a.rows; ++r) {
    const float* x = a.src + static_cast<int64_t>(r) * a.features;
    double sum = 0, square = 0;
    for (int c = 0; c < a.features; ++c) sum += x[c];
    const double mean = sum / a.features;
    for (int c = 0; c < a.features; ++c) square += (x[c] - mean) * (x[c] - mean);
    const double rstd = 1 / std::sqrt(square / a.features + a.eps);
    for (int c = 0; c < a.features; ++c) {
      *dst++ = static_cast<float>((x[c] - mean) * rstd * (a.gamma ? a.gamma[c] : 1) + (a.beta ? a.beta[c] : 0));
    }
  }
}

void attention(const AttentionArgs& a, const float* q, const float* k, const float* v, float* dst) {
  const int keys = a.added_tokens + a.tokens, width = a.heads * a.head_dim;
  std::vector<double> scores(keys);
  for (int b = 0; b < a.batch; ++b)
    for (int h = 0; h < a.heads; ++h)
      for (int i = 0; i < a.queries; ++i) {
        const int64_t row = (static_cast<int64_t>(b) * a.queries + i) * width + h * a.head_dim;
        double top = -INFINITY, total = 0;
        for (int j = 0; j < keys; ++j) {
          const float* key = k + (static_cast<int64_t>(b) * keys + j) * width + h * a.head_dim;
          double dot = 0;
          for (int d = 0; d < a.head_dim; ++d) dot += static_cast<double>(q[row + d]) * key[d];
          const int64_t masked = b * a.mask_stride + h * a.mask_head_stride + i * a.mask_query_stride + j;
          scores[j] = dot * a.scale + (a.mask ? a.mask[masked] : 0);
          top = std::max(top, scores[j]);
        }
        for (double& score : scores) total += score = std::exp(score - top);
        for (int d = 0; d < a.head_dim; ++d) {
          double sum = 0;
          for (int j = 0; j < keys; ++j) {
            sum += scores[j] * v[(static_cast<int64_t>(b) * keys + j) * width + h * a.head_dim + d];
          }
          dst[row + d] = static_cast<float>(sum / total);
        }
      }
}

}  // namespace kandinsky::reference
