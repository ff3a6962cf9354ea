#include "octet/debug/report_page_impl.h"

// The files are HTML, CSS and JavaScript, each within the quotes of a raw string.

namespace octet::debug::detail {

const char* const kReportPage =
#include "octet/debug/report_page.raw"
    ;

const char* const kReportStyle =
#include "octet/debug/report_style.raw"
    ;

const char* const kReportScript =
#include "octet/debug/report_script.raw"
    ;

}  // namespace octet::debug::detail
