// The floors of docs/architecture.md: an include may only point down.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// Each floor and the floors it may include (itself always).
const std::map<std::string, std::set<std::string>>& floors() {
  static const std::map<std::string, std::set<std::string>> allowed = [] {
    std::map<std::string, std::set<std::string>> a;
    a["base"] = {};
    a["tensor"] = {"base"};
    a["kernels"] = {"base"};
    a["engine"] = {"base", "tensor", "kernels"};
    a["autograd"] = {"base", "tensor"};
    a["ops"] = {"base", "tensor", "kernels", "engine", "autograd"};
    a["nn"] = {"base", "tensor", "engine", "autograd", "ops"};
    a["graph"] = {"base", "tensor", "engine", "autograd", "ops", "nn"};
    a["runtime"] = {"base", "tensor", "engine", "autograd", "ops", "nn", "graph"};
    a["io"] = {"base", "tensor", "engine", "autograd", "ops", "nn", "graph"};
    // docs/adr/0001: calibration runs programs.
    a["quant/observe"] = {"base", "tensor", "kernels", "engine", "autograd", "ops", "nn"};
    a["quant/modules"] = {"base", "tensor", "engine", "autograd", "ops", "nn", "quant/observe"};
    a["quant/backend"] = {"base", "tensor", "engine",        "ops",
                          "nn",   "graph",  "quant/observe", "quant/modules"};
    a["quant/decide"] = {"base",  "tensor",        "ops",           "nn",
                         "graph", "quant/observe", "quant/modules", "quant/backend"};
    a["quant/workflow"] = {
        "base",  "tensor",  "engine",        "autograd",      "ops",           "nn",
        "graph", "runtime", "quant/observe", "quant/modules", "quant/backend", "quant/decide"};
    a["quant/algorithms"] = a["quant/workflow"];
    a["quant/algorithms"].insert("quant/workflow");
    // What looks at models and graphs, float and quantized.
    a["debug"] = a["quant/workflow"];
    a["debug"].insert({"quant/workflow", "quant/algorithms"});
    // What quantizes by trial: it asks debug which layers lose the accuracy.
    a["quant/tune"] = a["debug"];
    a["quant/tune"].insert("debug");
    // The processes that do one command together.
    a["dist"] = a["debug"];
    a["dist"].insert({"debug", "io"});
    // The face in C stands on all.
    a["c"] = a["debug"];
    a["c"].insert({"io", "debug", "quant/algorithms"});
    return a;
  }();
  return allowed;
}

// "quant/observe" for octet/quant/observe/observer.h, "tensor" for octet/tensor/type.h.
std::string floor_of(const std::string& path) {
  std::vector<std::string> parts;
  for (const auto& p : fs::path(path)) parts.push_back(p.string());
  if (parts.size() < 3 || parts[0] != "octet") return "";
  return parts[1] == "quant" && parts.size() > 3 ? "quant/" + parts[2] : parts[1];
}

std::vector<std::string> includes(const fs::path& file) {
  std::vector<std::string> result;
  std::ifstream in(file);
  std::string line;
  static const std::regex pattern(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  for (std::smatch m; std::getline(in, line);)
    if (std::regex_search(line, m, pattern)) result.push_back(m[1].str() + m[2].str());
  return result;
}

std::vector<fs::path> sources() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator("octet"))
    if (entry.path().extension() == ".h" || entry.path().extension() == ".cpp")
      files.push_back(entry.path());
  return files;
}

}  // namespace

TEST(Layering, IncludesOnlyPointDown) {
  auto files = sources();
  ASSERT_GT(files.size(), 50u) << "run from the root of the repository";
  for (const fs::path& file : files) {
    std::string floor = floor_of(file.generic_string());
    if (floor.empty()) continue;  // octet/octet.h, the public face
    ASSERT_TRUE(floors().count(floor)) << file << ": floor '" << floor << "' is not in the plan";
    for (const std::string& name : includes(file)) {
      std::string target = floor_of(name.substr(1));
      if (target.empty() || target == floor) continue;
      EXPECT_TRUE(floors().at(floor).count(target))
          << file << " includes " << name.substr(1) << ": " << floor << " must not know " << target;
    }
  }
}

TEST(Layering, PublicHeadersIncludeOnlyTheStandardLibraryAndOctet) {
  for (const fs::path& file : sources()) {
    std::string name = file.filename().string();
    if (file.extension() != ".h" || name.ends_with("_impl.h")) continue;
    for (const std::string& include : includes(file)) {
      std::string target = include.substr(1);
      if (include[0] == '"') {
        EXPECT_EQ(target.rfind("octet/", 0), 0u) << file << " includes " << target;
        EXPECT_FALSE(target.ends_with("_impl.h")) << file << " is public and includes " << target;
      } else {
        // Standard headers have neither a directory nor an extension, but C's.
        const bool of_c = target == "stddef.h" || target == "stdint.h";
        EXPECT_TRUE(target.find_first_of("/.") == std::string::npos ||
                    (of_c && floor_of(file.string()) == "c"))
            << file << " includes <" << target << ">";
      }
    }
  }
}

// What parses bytes from outside is known to one file, which checks them; std::regex recurses on
// long texts.
TEST(Layering, EachParserIsBehindOneReader) {
  const std::map<std::string, std::string> reader = {
      {"jpeglib.h", "octet/io/image_jpeg.cpp"},
      {"png.h", "octet/io/image_png.cpp"},
      {"re2/re2.h", "octet/base/text.cpp"},
      {"xxhash.h", "octet/io/safetensors.cpp"},
      {"nlohmann/json.hpp", "octet/base/json_impl.h"},
      {"regex", "none"}};
  for (const fs::path& file : sources())
    for (const std::string& include : includes(file))
      if (auto it = reader.find(include.substr(1)); it != reader.end()) {
        EXPECT_EQ(file.generic_string(), it->second) << "includes <" << it->first << ">";
      }
}

TEST(Layering, IntrinsicsStayOnTheKernelFloor) {
  for (const fs::path& file : sources()) {
    if (floor_of(file.generic_string()) == "kernels") continue;
    for (const std::string& include : includes(file))
      EXPECT_EQ(include.find("intrin.h"), std::string::npos) << file;
  }
}

// fmt::print to standard error and std::cerr's kin may throw, or leave a line unwritten and go on:
// messages go by octet::cli::say, and the library has no messages of its own.
TEST(Layering, NothingButSayWritesToStandardError) {
  auto files = sources();
  for (const auto& entry : fs::recursive_directory_iterator("cli"))
    if (entry.is_regular_file()) files.push_back(entry.path());
  for (const fs::path& file : files) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      if (line.find("//") != std::string::npos) line.resize(line.find("//"));
      for (const char* word : {"stderr", "std::cerr", "std::clog", "perror("})
        EXPECT_EQ(line.find(word), std::string::npos) << file << ": " << line;
    }
  }
}
