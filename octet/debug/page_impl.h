#pragma once
// Pages for a browser: one file that needs no network, with a graph's nodes as a picture and a
// table (page.raw, page_style.raw, page_script.raw).

#include <string>
#include <utility>
#include <vector>

namespace octet::debug::detail {

// What a page says and does of its own.
struct Page {
  // The words of page.raw, by the name that stands there between @s; HTML.
  std::vector<std::pair<std::string, std::string>> words;
  std::string data;    // JSON, which the script finds as `data`
  const char* script;  // calls drawPage of page_script.raw
};
std::string make_page(const Page& page);

}  // namespace octet::debug::detail
