#include "octet/debug/compare_impl.h"
#include "octet/debug/report.h"

namespace octet::debug {
void advise(Comparison&, const graph::Graph&, const graph::Graph&, const Samples&,
            const AdviceOptions&) {}
std::string html_report(const Comparison&, const ReportOptions&) { return ""; }
}  // namespace octet::debug
