#pragma once
// What the tests of the command line share. They run in the root of the repository.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/io/npz.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {

inline const std::string kNet = "examples/glyphs/glyphs.onnx";
inline const std::string kCalibration = "examples/glyphs/calibrate.npz";
inline const std::string kTest = "examples/glyphs/test.npz";

// The work failed as it should: this exit status, nothing on stdout, on stderr one line "octet:
// error: ..." with all these parts.
inline void expect_failure(const RunResult& r, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(r.code, code) << r.err;
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(r.err.rfind("octet: error: ", 0), 0u) << r.err;
  EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << "not one line: " << r.err;
  for (const std::string& part : parts)
    EXPECT_NE(r.err.find(part), std::string::npos) << "'" << part << "' is not in: " << r.err;
}

inline void expect_success(const RunResult& r) {
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "");
}

// Of a successful --json: one object on one line, and nothing else anywhere.
inline nlohmann::json json_of(const RunResult& r) {
  expect_success(r);
  EXPECT_EQ(r.out.find('\n'), r.out.size() - 1) << "not one line: " << r.out;
  auto json = nlohmann::json::parse(r.out, nullptr, false);
  EXPECT_TRUE(json.is_object()) << r.out;
  return json;
}

// What the program prints with these arguments, which hold --json.
inline nlohmann::json octet_json(const std::vector<std::string>& args) {
  return json_of(run_octet(args));
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Quantizes the glyph network; the result of --json.
inline nlohmann::json quantize_glyphs(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> args{"quantize", kNet, "--calibrate", kCalibration, "--samples",
                                "64",       "-o", out,           "--json"};
  args.insert(args.end(), more.begin(), more.end());
  return json_of(run_octet(args));
}

// The names of a model's 8-bit operators and of the others, as inspect gives them, without
// (de)quantize.
struct Placed {
  std::vector<std::string> quantized, left;
};
inline Placed placed(const std::string& model) {
  Placed p;
  auto json = json_of(run_octet({"inspect", model, "--json"}));
  for (const auto& node : json["nodes"])
    if (node["op"] != "quantize" && node["op"] != "dequantize")
      (node["quantized"].get<bool>() ? p.quantized : p.left)
          .push_back(node["name"].get<std::string>());
  return p;
}

}  // namespace octet::testing
