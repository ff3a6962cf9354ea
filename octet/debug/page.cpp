#include "octet/debug/page_impl.h"

#include "octet/base/check_impl.h"

namespace octet::debug::detail {
namespace {

// HTML, CSS and JavaScript, each within the quotes of a raw string.
const char* const kPage =
#include "octet/debug/page.raw"
    ;
const char* const kPageStyle =
#include "octet/debug/page_style.raw"
    ;
const char* const kPageScript =
#include "octet/debug/page_script.raw"
    ;

}  // namespace

std::string make_page(const Page& page) {
  std::string data, html = kPage;
  for (const char ch : page.data)  // nothing in it ends the script
    data += ch == '<' ? std::string("\\u003c") : std::string(1, ch);
  const auto put = [&](const std::string& name, const std::string& text) {
    const std::string place = "@" + name + "@";
    size_t at = html.find(place);
    OCTET_CHECK(at != std::string::npos, internal, "the page has no place {}", place);
    for (; at != std::string::npos; at = html.find(place, at + text.size()))
      html.replace(at, place.size(), text);
  };
  for (const auto& [name, text] : page.words) put(name, text);
  put("SCRIPT", std::string(kPageScript) + page.script);
  put("STYLE", kPageStyle);
  put("DATA", data);  // the last, for it may hold whatever names there are
  return html;
}

}  // namespace octet::debug::detail
