// The code in header comments: that extract.awk finds it, and that the compiler would find it
// wrong.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

RunResult extract(const std::string& header) {
  return run_process({"/usr/bin/env", "awk", "-f", "tests/headers/extract.awk", header});
}

RunResult extract_text(const TempDir& dir, const std::string& text) {
  std::ofstream(dir.path() / "sample.h") << text;
  return extract((dir.path() / "sample.h").string());
}

// The compiler's verdict on what was extracted.
int compiles(const TempDir& dir, const std::string& code) {
  std::ofstream(dir.path() / "code.cpp") << code;
  return run_process({OCTET_CXX, "-std=c++20", "-fsyntax-only", (dir.path() / "code.cpp").string()})
      .code;
}

// What test_headers was built with, so what the compiler has accepted.
TEST(HeaderSnippets, AllHeadersAreCompiled) {
  std::ifstream in(OCTET_SNIPPETS);
  std::string line;
  int blocks = 0;
  bool module = false;
  while (std::getline(in, line)) {
    blocks += line.rfind("#line ", 0) == 0;
    module |= line.find("octet/nn/module.h\"") != std::string::npos;
  }
  EXPECT_GE(blocks, 30);
  EXPECT_TRUE(module);
}

TEST(HeaderSnippets, CodeIsTakenAndTextIsNot) {
  TempDir dir;
  RunResult r = extract_text(
      dir,
      "// Says what it does:\n//   int a = 1;\n//   if (a)\n//     a = 2;\n//\n//   int a = 3;\n"
      "//  no code here\n//    nor here\nint b;\n  //   struct S { int c; };\n  // text\n");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("if (a)\n  a = 2;\n}\n}\n"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("block_3 {\n#line 10"), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("block_4"), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("here"), std::string::npos) << r.out;
  EXPECT_EQ(compiles(dir, r.out), 0) << r.out;
}

TEST(HeaderSnippets, BrokenCodeIsCaught) {
  TempDir dir;
  RunResult r = extract_text(dir, "//   int a = missing;\n");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(compiles(dir, r.out), 0) << r.out;
}

TEST(HeaderSnippets, UnclearIndentationIsAnError) {
  TempDir dir;
  RunResult r = extract_text(dir, "// Text.\n//     int a = 1;\n");
  EXPECT_NE(r.code, 0);
  EXPECT_NE(r.err.find("sample.h:2: "), std::string::npos) << r.err;
}

}  // namespace
}  // namespace octet::testing
