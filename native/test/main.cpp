// kandinsky-native-test [--filter TEXT] [--fixtures FOLDER] [--device NAME] [--list] [--list-kernels]
//
// --device computes networks there; without a CUDA build "cuda" is emulated. --list prints the names of the tests,
// --list-kernels those that KANDINSKY_CPU may have on this machine.
#include <filesystem>
#include <random>

#include "test/backends.h"
#include "test/check.h"
#include "test/tested_kernels.h"
#ifdef KANDINSKY_EMULATED_CUDA
#include "test/cuda_host/emulated_device.h"
#endif

namespace kandinsky::test {

namespace {
size_t passed_checks = 0, failed_checks = 0;
std::string fixtures_folder = "test/fixtures/", device_name = "cpu";

const std::filesystem::path& temporary_folder() {
  static const std::filesystem::path folder = [] {
    const auto path = std::filesystem::temp_directory_path() /
                      ("kandinsky-native-test-" + std::to_string(std::random_device{}()));
    std::filesystem::create_directories(path);
    return path;
  }();
  return folder;
}

int run_all(const std::string& filter) {
  for (const Test& test : registered_tests()) {
    if (std::string(test.name).find(filter) == std::string::npos) continue;
    const size_t failures = failed_checks;
    try {
      test.run();
    } catch (const std::exception& error) {
      record(false, test.name, 0, std::string("unexpected exception: ") + error.what());
    }
    std::printf("%s %s\n", failed_checks == failures ? "ok  " : "FAIL", test.name);
    std::fflush(stdout);
  }
  std::filesystem::remove_all(temporary_folder());
  std::printf("%zu passed, %zu failed\n", passed_checks, failed_checks);
  return failed_checks > 0 || passed_checks == 0;
}
}  // namespace

std::vector<Test>& registered_tests() {
  static std::vector<Test> tests;
  return tests;
}

void record(bool passed, const char* file, int line, const std::string& message) {
  ++(passed ? passed_checks : failed_checks);
  if (!passed) std::printf("  %s:%d: %s\n", file, line, message.c_str());
}

const std::string& fixtures() { return fixtures_folder; }
const std::string& device() { return device_name; }

std::string temporary_path(const std::string& name) { return (temporary_folder() / name).string(); }

void check_throws(ErrorCode code, const std::string& part, const std::function<void()>& call, const char* file,
                  int line) {
  try {
    call();
    record(false, file, line, std::string("expected ") + error_code_name(code) + " but nothing was thrown");
  } catch (const Error& error) {
    record(error.code == code && std::string(error.what()).find(part) != std::string::npos, file, line,
           std::string("expected ") + error_code_name(code) + " with \"" + part + "\" but received " +
               error_code_name(error.code) + ": " + error.what());
  }
}

}  // namespace kandinsky::test

int main(int argc, char** argv) {
  kandinsky::test::load_own_backends();
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--filter" && i + 1 < argc) {
      filter = argv[++i];
    } else if (option == "--fixtures" && i + 1 < argc) {
      kandinsky::test::fixtures_folder = std::string(argv[++i]) + "/";
    } else if (option == "--device" && i + 1 < argc) {
      kandinsky::test::device_name = argv[++i];
#ifdef KANDINSKY_EMULATED_CUDA
      if (kandinsky::test::device_name == "cuda") kandinsky::test::emulate_cuda();
#endif
    } else if (option == "--list") {
      for (const auto& test : kandinsky::test::registered_tests()) std::printf("%s\n", test.name);
      return 0;
    } else if (option == "--list-kernels") {
      for (auto kernels : kandinsky::test::tested_kernels()) std::printf("%s\n", kernels->name);
      return 0;
    } else {
      std::fprintf(stderr, "usage: %s [--filter TEXT] [--fixtures FOLDER] [--device NAME] [--list] [--list-kernels]\n", argv[0]);
      return 2;
    }
  }
  return kandinsky::test::run_all(filter);
}
