// MoVQ in tiles: the same result, to the bit, in less memory.
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#ifdef __linux__
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

std::unique_ptr<Network> load_movq(Tiling tiling, Type type = Type::f32, Packing packing = Packing::compact) {
  Component component = read_component("kandinsky-2-2-decoder", "movq");
  for (TensorSource& source : component.sources) {
    const int64_t row_length = element_count(source.shape) / source.shape[0];
    if (source.shape.size() > 1 && row_length % 32 == 0) source.target = type;  // q8_0 has blocks of 32
  }
  LoadOptions options;
  options.threads = 1;
  options.tiling = tiling;
  options.packing = packing;
  return load_network(component.class_name, component.config, component.sources, options);
}

/// Quieter above than below, so that no tile has the statistics of the whole.
HostTensor uneven_image(int64_t batch, int64_t channels, int64_t height, int64_t width) {
  HostTensor image{{batch, channels, height, width}, {}, {}, false};
  for (int64_t plane = 0; plane < batch * channels; ++plane) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const float noise = std::sin(12.9898f * x + 78.233f * y + 37.719f * plane);
        image.f32.push_back(noise * (0.1f + 2.0f * y / height) + (y % 3 ? 0 : 1));
      }
    }
  }
  return image;
}

HostTensor decode(Network& movq, const HostTensor& latents, const RunOptions& options = {}) {
  return movq.run("decode", {{"latents", latents}}, options).at("sample");
}

HostTensor encode(Network& movq, const HostTensor& sample) {
  return movq.run("encode", {{"sample", sample}}, {}).at("latents");
}

void check_equal(const std::string& what, const HostTensor& tiled, const HostTensor& whole) {
  CHECK(tiled.shape == whole.shape);
  const double difference = largest_difference(tiled, whole);
  CHECK_MESSAGE(difference == 0, what + " in tiles differs by " + std::to_string(difference));
}

}  // namespace

TEST(tiled_decoding_gives_the_same_picture) {
  for (const Type type : {Type::f32, Type::f16, Type::q8_0}) {
    for (const Packing packing : {Packing::compact, Packing::fast}) {
      const auto whole = load_movq(Tiling::never, type, packing), tiled = load_movq(Tiling::always, type, packing);
      // One tile, tiles that do not divide the height, wide and high pictures, several samples.
      for (const auto& [batch, height, width] : {std::array<int64_t, 3>{1, 1, 1}, {1, 1, 9}, {1, 16, 3}, {1, 37, 5},
                                                 {1, 9, 24}, {3, 9, 4}}) {
        const HostTensor latents = uneven_image(batch, 4, height, width);
        check_equal("sample of " + std::to_string(height) + " x " + std::to_string(width) + " latents",
                    decode(*tiled, latents), decode(*whole, latents));
      }
    }
  }
}

TEST(tiled_encoding_gives_the_same_latents) {
  for (const Type type : {Type::f32, Type::q8_0}) {
    const auto whole = load_movq(Tiling::never, type), tiled = load_movq(Tiling::always, type);
    for (const auto& [batch, height, width] : {std::array<int64_t, 3>{1, 8, 8}, {1, 203, 32}, {2, 80, 24}}) {
      const HostTensor sample = uneven_image(batch, 3, height, width);
      check_equal("latents of " + std::to_string(height) + " x " + std::to_string(width) + " pixels",
                  encode(*tiled, sample), encode(*whole, sample));
    }
  }
}

/// What the tests above rely on.
TEST(part_of_the_latents_gives_another_picture_than_that_part_of_the_picture) {
  const auto movq = load_movq(Tiling::never);
  const int64_t height = 32, width = 8, some = 16;
  const HostTensor latents = uneven_image(1, 4, height, width), picture = decode(*movq, latents);
  HostTensor above{{1, 4, some, width}, {}, {}, false};
  for (int64_t channel = 0; channel < 4; ++channel) {
    const auto first = latents.f32.begin() + channel * height * width;
    above.f32.insert(above.f32.end(), first, first + some * width);
  }
  CHECK(std::fabs(decode(*movq, above).f32[0] - picture.f32[0]) > 1e-3);
}

TEST(tiles_take_less_memory) {
  const auto whole = load_movq(Tiling::never), tiled = load_movq(Tiling::always);
  const HostTensor latents = uneven_image(1, 4, 96, 96);
  decode(*whole, latents);
  decode(*tiled, latents);
  CHECK_MESSAGE(tiled->compute_bytes() < 0.6 * whole->compute_bytes(),
                std::to_string(tiled->compute_bytes()) + " of " + std::to_string(whole->compute_bytes()) + " bytes");
}

// AddressSanitizer reserves terabytes of address space.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
namespace {

/// Makes allocations fail beyond `spare` bytes more than the process has now.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(double spare) {
    getrlimit(RLIMIT_AS, &before_);
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{pages * sysconf(_SC_PAGESIZE) + static_cast<rlim_t>(spare), before_.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

}  // namespace

TEST(without_memory_for_the_whole_picture_tiles_are_chosen) {
  const auto whole = load_movq(Tiling::never), automatic = load_movq(Tiling::automatic);
  const HostTensor latents = uneven_image(1, 4, 128, 128), picture = decode(*whole, latents);
  decode(*automatic, uneven_image(1, 4, 8, 8));  // what any call allocates once
  const AddressSpaceLimit limit(0.85 * whole->compute_bytes());
  CHECK_THROWS(out_of_memory, "", decode(*whole, latents));
  check_equal("sample", decode(*automatic, latents), picture);
  CHECK(automatic->compute_bytes() < 0.6 * whole->compute_bytes());
}
#endif

TEST(calls_with_taps_are_computed_whole) {
  const auto whole = load_movq(Tiling::never), tiled = load_movq(Tiling::always);
  RunOptions options;
  options.taps = {"decoder.up_blocks.1"};
  const HostTensors inputs{{"latents", uneven_image(1, 4, 8, 8)}};
  const HostTensors expected = whole->run("decode", inputs, options), actual = tiled->run("decode", inputs, options);
  for (const auto& [name, tensor] : expected) check_equal(name, actual.at(name), tensor);
  CHECK(tiled->compute_bytes() == whole->compute_bytes());
}

TEST(a_tiled_decode_can_be_cancelled_in_the_middle) {
  const auto movq = load_movq(Tiling::always);
  const CancelLater cancel;
  RunOptions options;
  options.cancel = cancel.flag();
  CHECK_THROWS(aborted, "cancelled", decode(*movq, uneven_image(1, 4, 256, 256), options));
  CHECK(decode(*movq, uneven_image(1, 4, 2, 2)).shape == std::vector<int64_t>({1, 3, 16, 16}));
}
