#pragma once
// The parts of the page: octet/debug/report_page.cpp.

namespace octet::debug::detail {

// The page, with @STYLE@, @DATA@ and @SCRIPT@ where those belong.
extern const char* const kReportPage;
extern const char* const kReportStyle;
extern const char* const kReportScript;

}  // namespace octet::debug::detail
