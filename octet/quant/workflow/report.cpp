#include "octet/quant/workflow/report.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/ops/op.h"

namespace octet::quant {
namespace {

bool only_moves(const std::string& op) {
  const ops::Op* known = ops::find(op);
  return known && known->traits().moves;
}

}  // namespace

int64_t ConversionReport::quantized() const {
  return std::count_if(entries.begin(), entries.end(), [](const Entry& e) { return e.quantized; });
}

std::vector<ConversionReport::Entry> ConversionReport::left_float() const {
  std::vector<Entry> result;
  for (const Entry& e : entries)
    if (!e.quantized && !only_moves(e.op)) result.push_back(e);
  return result;
}

void require_nothing_left_float(const ConversionReport& report) {
  std::vector<std::string> lines;
  for (const auto& e : report.left_float())
    lines.push_back(fmt::format("{} ({}): {}", e.node, e.op, e.reason));
  OCTET_CHECK(lines.empty(), unsupported, "{} nodes stay float, which strict forbids: {}",
              lines.size(), fmt::join(lines, "; "));
}

}  // namespace octet::quant
