// One weight as the border describes it, of any type, shape, strides and place in a file of any bytes: read_tensor() gives
// exactly the bytes that it promises, or refuses.
#include <fuzzer/FuzzedDataProvider.h>

#include "core/tensor_source.h"
#include "fuzz/fuzz.h"

namespace kandinsky::fuzz {

namespace {

constexpr int64_t max_elements = 1 << 16;

std::vector<int64_t> numbers(FuzzedDataProvider& input, size_t count) {
  std::vector<int64_t> list;
  for (size_t i = 0; i < count; ++i)
    list.push_back(input.ConsumeProbability<float>() < 0.9f ? input.ConsumeIntegralInRange<int64_t>(0, 64)
                                                            : input.ConsumeIntegral<int64_t>());
  return list;
}

TensorSource any_source(FuzzedDataProvider& input) {
  TensorSource source;
  source.name = "weight";
  source.type = static_cast<Type>(input.ConsumeIntegralInRange(0, static_cast<int>(Type::f8_e5m2)));
  source.target = static_cast<Type>(input.ConsumeIntegralInRange(0, static_cast<int>(Type::f8_e5m2)));
  source.shape = numbers(input, input.ConsumeIntegralInRange<size_t>(0, 5));
  if (input.ConsumeBool() && !source.shape.empty() && source.shape.back() > 0 && source.shape.back() <= 64) source.shape.back() *= 32;
  if (input.ConsumeBool()) source.stride = numbers(input, source.shape.size() + (input.ConsumeIntegral<uint8_t>() == 0));
  source.transposed = input.ConsumeBool();
  source.offset = input.ConsumeBool() ? input.ConsumeIntegral<uint8_t>() : input.ConsumeIntegral<uint64_t>();
  return source;
}

/// What the shape needs, or anything at all.
void set_bytes(TensorSource& source, FuzzedDataProvider& input) {
  source.bytes = input.ConsumeIntegral<uint64_t>();
  if (input.ConsumeProbability<float>() < 0.1f) return;
  try {
    source.bytes = tensor_bytes(source.type, source.shape);
    if (source.stride.empty()) return;
    uint64_t last = 0;  // may overflow
    for (size_t i = 0; i < source.shape.size(); ++i)
      last += static_cast<uint64_t>(source.shape.at(i) - 1) * static_cast<uint64_t>(source.stride.at(i));
    source.bytes = (last + 1) * static_cast<uint64_t>(block_bytes(source.type));
  } catch (const std::exception&) {
  }
}

}  // namespace

}  // namespace kandinsky::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kandinsky;
  static fuzz::MemoryFile file;
  FuzzedDataProvider input(data, size);
  TensorSource source = fuzz::any_source(input);
  fuzz::set_bytes(source, input);
  const int threads = input.ConsumeIntegralInRange(1, 2);
  const auto stored = input.ConsumeRemainingBytes<uint8_t>();
  file.set(stored.data(), stored.size());
  source.path = file.path();

  const std::initializer_list<ErrorCode> refusals = {ErrorCode::bad_file, ErrorCode::invalid_argument};
  if (!fuzz::is_accepted(refusals, [&] { check_source(source); })) return 0;
  // The network says which shape a weight has; strides of 0 make large ones of small files, which would only take time.
  if (element_count(source.shape) > fuzz::max_elements && source.bytes <= stored.size()) return 0;
  SourceFiles files;
  uint64_t done = 0;
  if (!fuzz::is_accepted(refusals, [&] {
        read_tensor(files, source, threads, nullptr, [&](uint64_t offset, const void* piece, size_t bytes) {
          EXPECT(offset == done);
          volatile uint8_t sum = 0;
          for (size_t i = 0; i < bytes; ++i) sum = sum + static_cast<const uint8_t*>(piece)[i];
          done += bytes;
        });
      }))
    return 0;
  EXPECT(done == target_bytes(source));
  EXPECT(source.offset <= stored.size() && source.bytes <= stored.size() - source.offset);
  return 0;
}
