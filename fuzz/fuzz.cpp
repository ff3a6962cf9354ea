#include "fuzz/fuzz.h"

#include "octet/base/error.h"
#include "tests/temp_dir.h"

namespace octet::fuzz {
namespace {

std::map<std::string, Target>& all_targets() {
  static std::map<std::string, Target>& all = *new std::map<std::string, Target>;
  return all;
}

}  // namespace

RegisteredTarget::RegisteredTarget(const Target& target) { all_targets()[target.name] = target; }
const std::map<std::string, Target>& targets() { return all_targets(); }

void finding(const std::string& message) { throw Finding(message); }

void run(const Target& target, const uint8_t* data, size_t size) {
  try {
    target.run(data, size);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::internal) finding(std::string("internal: ") + e.what());
    if (std::string(e.what()).find('\n') != std::string::npos)
      finding(std::string("an error of several lines: ") + e.what());
  }
}

std::filesystem::path work_directory() {
  static const testing::TempDir dir;
  return dir.path();
}

std::filesystem::path input_file(const uint8_t* data, size_t size, const std::string& name) {
  const std::filesystem::path path = work_directory() / name;
  testing::spill(path, std::string(reinterpret_cast<const char*>(data), size));
  return path;
}

std::string bytes_of(const std::string& name, void (*write)(const std::filesystem::path& path)) {
  const std::filesystem::path path = work_directory() / name;
  write(path);
  return testing::slurp(path);
}

}  // namespace octet::fuzz
