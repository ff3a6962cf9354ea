// The fuzzers without libFuzzer, for every build: each is given what is committed in
// fuzz/corpus/NAME, what it begins with, and random changes of these (OCTET_FUZZ_MUTATIONS of them,
// from OCTET_FUZZ_SEED). OCTET_FUZZ_SEEDS=DIRECTORY writes what each begins with to DIRECTORY/NAME
// instead.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "fuzz/fuzz.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "tests/temp_dir.h"

namespace {

octet::Random& source() {
  static octet::Random random(1);
  return random;
}
size_t below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(source().next() % n); }

}  // namespace

// As libFuzzer's: one small change in place.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  static constexpr uint8_t kEdges[] = {0, 1, 0x20, 0x7f, 0x80, 0xfe, 0xff};
  const size_t what = size == 0 ? 3 : below(6);
  const size_t at = below(size);
  switch (what) {
    case 0:
      data[at] = static_cast<uint8_t>(data[at] ^ 1 << below(8));
      return size;
    case 1:
      data[at] = kEdges[below(std::size(kEdges))];
      return size;
    case 2: {  // a run is left out
      const size_t run = std::min(size - at, 1 + below(16));
      std::memmove(data + at, data + at + run, size - at - run);
      return size - run;
    }
    case 3: {  // a run is written twice, or new bytes
      const size_t run = std::min({max_size - size, 1 + below(16), size - at + (size == 0)});
      if (run == 0) return size;
      if (size == 0) {
        data[0] = static_cast<uint8_t>(source().next());
        return 1;
      }
      std::memmove(data + at + run, data + at, size - at);
      return size + run;
    }
    case 4: {  // a number becomes another
      const uint64_t v = below(2) ? source().next() : source().next() % 256;
      std::memcpy(data + at, &v, std::min<size_t>({size - at, 8, size_t{1} << below(4)}));
      return size;
    }
    default:
      return below(8) == 0 ? at : size;  // cut off
  }
}

namespace octet::fuzz {
namespace {

constexpr size_t kMostBytes = size_t{1} << 16;
constexpr double kMostSeconds = 5;

int64_t from_environment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

class Replay : public ::testing::Test {
 public:
  explicit Replay(const Target& target) : target_(target) {}
  void TestBody() override {
    set_num_threads(1);
    Seeds inputs = target_.seeds();
    const std::filesystem::path corpus = std::filesystem::path("fuzz/corpus") / target_.name;
    if (std::filesystem::is_directory(corpus)) {
      std::vector<std::filesystem::path> files;
      for (const auto& entry : std::filesystem::directory_iterator(corpus))
        files.push_back(entry.path());
      std::sort(files.begin(), files.end());
      for (const auto& file : files) inputs.push_back(testing::slurp(file));
    }
    ASSERT_FALSE(inputs.empty());
    for (const std::string& input : inputs)
      if (!ran(input)) return;
    source() = Random(static_cast<uint64_t>(from_environment("OCTET_FUZZ_SEED", 1)));
    for (int64_t i = 0; i < from_environment("OCTET_FUZZ_MUTATIONS", 100); ++i) {
      std::string bytes = inputs[below(inputs.size())];
      size_t size = bytes.size();
      bytes.resize(std::max(kMostBytes, size));
      auto* data = reinterpret_cast<uint8_t*>(bytes.data());
      for (size_t n = 1 + below(4); n-- > 0;)
        size = target_.mutate ? target_.mutate(data, size, bytes.size(),
                                               static_cast<unsigned>(source().next()))
                              : LLVMFuzzerMutate(data, size, bytes.size());
      bytes.resize(size);
      if (!ran(bytes)) return;
    }
  }

 private:
  // The input stays in a file if it is a finding.
  bool ran(const std::string& input) {
    const std::filesystem::path kept =
        std::filesystem::temp_directory_path() / (std::string("octet-finding-") + target_.name);
    // A crash leaves the file behind.
    if (std::getenv("OCTET_FUZZ_KEEP")) testing::spill(kept, input);
    const auto start = std::chrono::steady_clock::now();
    std::string what;
    try {
      run(target_, reinterpret_cast<const uint8_t*>(input.data()), input.size());
    } catch (const std::exception& e) {
      what = e.what();
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (seconds > kMostSeconds) what += " took " + std::to_string(seconds) + " s";
    if (what.empty()) return true;
    testing::spill(kept, input);
    ADD_FAILURE() << target_.name << ": " << what << "\nthe input: " << kept;
    return false;
  }
  const Target& target_;
};

int main_of_replay(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const char* root = std::getenv("OCTET_FUZZ_SEEDS")) {
    for (const auto& [name, target] : targets()) {
      const std::filesystem::path directory = std::filesystem::path(root) / name;
      std::filesystem::create_directories(directory);
      int n = 0;
      for (const std::string& bytes : target.seeds())
        testing::spill(directory / ("seed" + std::to_string(n++)), bytes);
    }
    return 0;
  }
  for (const auto& [name, target] : targets())
    ::testing::RegisterTest("FuzzCorpus", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [&t = target]() -> ::testing::Test* { return new Replay(t); });
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace octet::fuzz

int main(int argc, char** argv) { return octet::fuzz::main_of_replay(argc, argv); }
