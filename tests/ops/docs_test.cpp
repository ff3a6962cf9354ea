// docs/operators.md is made from the registry: OCTET_UPDATE_DOCS=1 build/bin/test_ops
// --gtest_filter=Docs.* writes it anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "octet/io/onnx/import.h"
#include "octet/ops/op.h"
#include "octet/quant/decide/decide.h"

namespace octet {
namespace {

std::string operator_table() {
  std::ostringstream out;
  out << "# Operators\n"
         "Made from the registry by `OCTET_UPDATE_DOCS=1 build/bin/test_ops "
         "--gtest_filter=Docs.*`; do not edit.\n\n"
         "Quantized: `same` works on codes and keeps the operand's qparams; `own` has qparams of "
         "its own; `fixed` has fixed ones;\n"
         "`weights` has a float result, of weights that may be quantized; `no` has no form for "
         "codes.\n\n"
         "native: what the native backend does with it in static quantization. `yes`: it runs on "
         "codes; `weights`: its weights\n"
         "may be codes, in dynamic and weight-only quantization; `no`: it stays float.\n\n"
         "| operator | quantized | native | what it does |\n|---|---|---|---|\n";
  const quant::BackendConfig backend = quant::get_native_backend_config();
  for (const ops::Op* op : ops::all()) {
    const char* rule[] = {"no", "weights", "same", "own", "fixed"};
    const quant::BackendPatternConfig* config = backend.find_op(op->name());
    const char* native = config ? "weights" : "no";
    if (config)
      for (const quant::DTypeConfig& c : config->dtype_configs) {
        if (quant::mode_of(c) == quant::QuantMode::statically) native = "yes";
      }
    out << "| `" << op->schema() << "` | " << rule[static_cast<int>(op->rule())] << " | " << native
        << " | " << op->doc() << " |\n";
  }
  out << "\n## ONNX operators\n`octet` reads these, in the forms that inference uses (opsets 7 to "
         "23):\n";
  size_t column = 0;
  for (const std::string& name : io::onnx_operators()) {
    out << (column == 0 ? "" : column > 100 ? "\n" : " ") << name;
    column = column > 100 ? name.size() : column + name.size() + 1;
  }
  out << "\n";
  return out.str();
}

std::string contents(const char* path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

TEST(Docs, TheTableOfOperatorsIsCurrent) {
  const char* path = "docs/operators.md";
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream(path) << operator_table();
  EXPECT_EQ(contents(path), operator_table());
}

TEST(Docs, EveryOperatorIsDescribed) {
  for (const ops::Op* op : ops::all()) EXPECT_FALSE(op->doc().empty()) << op->name();
}

}  // namespace octet
