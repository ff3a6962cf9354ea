#pragma once
// The functions that octet's own backend configs name (backends.cpp).

#include <map>
#include <string>
#include <typeindex>

#include "octet/quant/backend/backend_config.h"

namespace octet::quant {

void add_builtins(std::map<std::type_index, MakeModule>& replacements,
                  std::map<std::string, FuserMethod::Fuse, std::less<>>& fusers);

}  // namespace octet::quant
