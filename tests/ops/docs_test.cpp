// docs/operators.md is made from the registry: OCTET_UPDATE_DOCS=1 build/bin/test_ops --gtest_filter=Docs.* writes it anew.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "octet/ops/op.h"

namespace octet {
namespace {

std::string operator_table() {
  std::ostringstream out;
  out << "# Operators\n"
         "Made from the registry by `OCTET_UPDATE_DOCS=1 build/bin/test_ops --gtest_filter=Docs.*`; do not edit.\n\n"
         "Quantized: `same` works on codes and keeps the operand's qparams; `own` has qparams of its own; `fixed` has fixed ones;\n"
         "`no` stays float.\n\n"
         "| operator | quantized | what it does |\n|---|---|---|\n";
  for (const ops::Op* op : ops::all()) {
    const char* rule[] = {"no", "same", "own", "fixed"};
    out << "| `" << op->schema() << "` | " << rule[static_cast<int>(op->rule())] << " | " << op->doc() << " |\n";
  }
  return out.str();
}

}  // namespace

TEST(Docs, TheTableOfOperatorsIsCurrent) {
  const char* path = "docs/operators.md";
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream(path) << operator_table();
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ(text.str(), operator_table());
}

TEST(Docs, EveryOperatorIsDescribed) {
  for (const ops::Op* op : ops::all()) EXPECT_FALSE(op->doc().empty()) << op->name();
}

}  // namespace octet
