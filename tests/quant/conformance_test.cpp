// docs/conformance.md is made from the golden files, conformance.json (how each is compared) and
// conformance_differences.md:
//   OCTET_UPDATE_DOCS=1 build/bin/test_quant --gtest_filter=Conformance.*
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace octet {
namespace {

using nlohmann::json;

// Golden files whose names begin with `files` (the longest beginning counts), and how they are
// compared.
struct Row {
  std::string area, files, comparison, script, test;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> all = [] {
    std::ifstream file("tests/quant/conformance.json");
    std::vector<Row> made;
    for (const json& row : json::parse(file))
      made.push_back({row.at("area"), row.at("files"), row.at("comparison"), row.at("script"),
                      row.at("test")});
    return made;
  }();
  return all;
}

// The rows of the tables of what differs between graphs of graph mode; the last column is the
// tests'.
struct FxDifference {
  const char *model, *stage, *reason, *what;
};
const std::vector<FxDifference> kFxGraphs = {
#include "tests/quant/fx_differences.inc"
};
const std::vector<FxDifference> kFxOutputs = {
#include "tests/quant/fx_output_differences.inc"
};

const std::vector<FxDifference> kNumericSuite = {
#include "tests/debug/numeric_suite_fx_differences.inc"
};

// One row per reason, with the models and stages that it is seen in ("prepared" for "prepared PATH"
// of a graph inside).
std::string table_of(const std::vector<FxDifference>& differences) {
  struct Seen {
    std::string reason;
    std::vector<std::string> models, stages;
  };
  std::vector<Seen> rows;
  auto add = [](std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const FxDifference& d : differences) {
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Seen& seen) { return seen.reason == d.reason; });
    if (row == rows.end()) row = rows.insert(row, {d.reason, {}, {}});
    add(row->models, d.model);
    add(row->stages, std::string(d.stage).substr(0, std::string(d.stage).find(' ')));
  }
  auto joined = [](const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  };
  std::string table = "| octet | models | stages |\n|---|---|---|\n";
  for (const Seen& row : rows)
    table += "| " + row.reason + " | " + joined(row.models) + " | " + joined(row.stages) + " |\n";
  return table;
}

std::string fx_differences() {
  return "\n## Graph mode: deliberate differences\n"
         "Of graphs (`tests/quant/fx_differences.inc` has octet's, node for node; models: "
         "`tests/quant/fx_models.h`):\n\n" +
         table_of(kFxGraphs) +
         "\nOf values (`tests/quant/fx_output_differences.inc` has which and by how much):\n\n" +
         table_of(kFxOutputs) +
         "\nOf the numeric suite (`tests/debug/numeric_suite_fx_differences.inc` has the layers; "
         "a \"+\" there is one that octet\nhas more):\n\n" +
         table_of(kNumericSuite);
}

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string stem(const std::filesystem::path& file) { return file.stem().string(); }

const Row* row_of(const std::string& name) {
  const Row* found = nullptr;
  for (const Row& row : rows())
    if (name.starts_with(row.files) && (!found || row.files.size() > found->files.size()))
      found = &row;
  return found;
}

// A golden file is a list of cases, or has them as "cases" or, the optimizers', under several
// names.
size_t cases_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  json golden = json::parse(file);
  if (golden.is_array()) return golden.size();
  if (golden.contains("cases")) return golden["cases"].size();
  size_t n = 0;
  for (const char* list : {"optimizers", "schedules", "clips"})
    if (golden.contains(list)) n += golden[list].size();
  return n + golden.contains("distillation");
}

std::map<const Row*, std::vector<std::filesystem::path>> golden_files() {
  std::map<const Row*, std::vector<std::filesystem::path>> files;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden")) {
    const Row* row = row_of(stem(entry.path()));
    EXPECT_TRUE(row) << entry.path() << ": say in tests/quant/conformance.json how it is compared";
    if (row) files[row].push_back(entry.path());
  }
  for (auto& [row, paths] : files) std::sort(paths.begin(), paths.end());
  return files;
}

std::string conformance(size_t& total) {
  auto files = golden_files();
  std::ostringstream table;
  total = 0;
  for (const Row& row : rows()) {
    size_t n = 0;
    std::string names;
    for (const auto& path : files[&row]) {
      n += cases_in(path);
      names += (names.empty() ? "`" : ", `") + stem(path) + "`";
    }
    if (n == 0) continue;
    total += n;
    table << "| " << row.area << " | " << n << " | " << row.comparison << " | " << names << " | `"
          << row.script << ".py` | `" << row.test << ".*` |\n";
  }
  std::ostringstream out;
  out << "# Conformance with PyTorch 1.13\n"
         "Made from tests/golden by `OCTET_UPDATE_DOCS=1 build/bin/test_quant "
         "--gtest_filter=Conformance.*`; do not edit.\n\n"
      << total
      << " cases. Each is an answer of PyTorch 1.13 (Debian's python3-torch; engines qnnpack and "
         "onednn), written to\n"
         "`tests/golden/<file>.json` by `scripts/oracle/<script>`, and compared by the tests named "
         "(`ctest -L golden`). `modules_*`\n"
         "files with codes and `dynamic_linear` are compared on octet's native and reference "
         "engines.\n"
         "\"Bits\": equal to the last bit; \"1 step\": codes differ by 1 at most.\n\n"
         "| what | cases | equal to | files | script | tests |\n|---|---|---|---|---|---|\n"
      << table.str() << "\n"
      << text_of("tests/quant/conformance_differences.md") << fx_differences();
  return out.str();
}

}  // namespace

TEST(Conformance, TheTableOfGoldenCasesIsCurrent) {
  const char* path = "docs/conformance.md";
  size_t total = 0;
  std::string text = conformance(total);
  EXPECT_GE(total, 1500u);
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream(path) << text;
  std::ifstream in(path);
  std::stringstream committed;
  committed << in.rdbuf();
  EXPECT_EQ(committed.str(), text) << "docs/conformance.md is stale: see its second line";
}

TEST(Conformance, EveryGoldenFileHasItsScriptAndIsReadByATest) {
  std::string tests;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("tests"))
    if ((entry.path().extension() == ".cpp" || entry.path().extension() == ".h") &&
        entry.path().filename() != "conformance_test.cpp") {
      std::ifstream in(entry.path());
      tests.append(std::istreambuf_iterator<char>(in), {});
    }
  auto reads = [&](const std::string& text) { return tests.find(text) != std::string::npos; };
  for (const auto& [row, paths] : golden_files()) {
    EXPECT_TRUE(std::filesystem::exists(std::string("scripts/oracle/") + row->script + ".py"))
        << row->script;
    EXPECT_TRUE(reads("TEST(" + std::string(row->test) + ",") ||
                reads("TEST_P(" + std::string(row->test) + ","))
        << row->test;
    for (const auto& path : paths) {
      EXPECT_LT(std::filesystem::file_size(path), 300'000u) << path;
      const std::string name = stem(path), first = name.substr(0, name.find('_') + 1),
                        rest = name.substr(first.size());
      EXPECT_TRUE(reads('"' + name + '"') || reads('"' + name + ".json\"") ||
                  (reads('"' + first + '"') && reads('"' + rest + '"')))
          << path << " is read by no test";
    }
  }
}

}  // namespace octet
