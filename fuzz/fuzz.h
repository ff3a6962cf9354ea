#pragma once
// What the fuzzers share. All of them are one program, fuzz_octet, in which the environment
// variable OCTET_FUZZER chooses one: the library is linked once. test_fuzz runs them without
// libFuzzer on what is committed in fuzz/corpus. docs/trust.md says how they are run.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace octet::fuzz {

// No single allocation of a run may be larger than kAllocationFactor times the input and
// Target::free_bytes.
constexpr size_t kAllocationFactor = 4;
// Of readers of formats without compression: room for tables, buffers and messages.
constexpr size_t kPlain = size_t{4} << 20;

using Seeds = std::vector<std::string>;

struct Target {
  const char* name;
  // Reads the input. An octet::Error is a right answer, but for one of the code `internal` or of
  // several lines; everything else that is thrown is a finding.
  void (*run)(const uint8_t* data, size_t size);
  Seeds (*seeds)();  // inputs to begin with
  size_t free_bytes = kPlain;
  // Changes an input in place, as LLVMFuzzerCustomMutator; null: bytes are changed.
  size_t (*mutate)(uint8_t* data, size_t size, size_t max_size, unsigned seed) = nullptr;
};

class RegisteredTarget {
 public:
  explicit RegisteredTarget(const Target& target);
};
const std::map<std::string, Target>& targets();

// Runs the target once. Throws Finding where what it says of an error is not right; whatever else
// the target throws passes through.
void run(const Target& target, const uint8_t* data, size_t size);

// A file of these bytes in a directory of the process's own, replaced by the next one of the name.
std::filesystem::path input_file(const uint8_t* data, size_t size, const std::string& name);
std::filesystem::path work_directory();
// The bytes of the file that `write` makes.
std::string bytes_of(const std::string& name, void (*write)(const std::filesystem::path& path));

// What must not be.
class Finding : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};
[[noreturn]] void finding(const std::string& message);

// Choices drawn from the input, as octet::Random gives them; zeros behind its end.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint64_t next() {
    uint64_t v = 0;
    for (int i = 0; i < 4; ++i) v = v << 8 | byte();
    return v;
  }
  double uniform() { return byte() / 256.0; }
  int64_t integer(int64_t low, int64_t high) {
    const auto range = static_cast<uint64_t>(high - low) + 1;
    return low + static_cast<int64_t>((range <= 256 ? byte() : next()) % range);
  }
  std::string rest() {
    std::string s(reinterpret_cast<const char*>(data_) + (at_ < size_ ? at_ : size_),
                  at_ < size_ ? size_ - at_ : 0);
    at_ = size_;
    return s;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

}  // namespace octet::fuzz
