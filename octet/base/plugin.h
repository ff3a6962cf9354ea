#pragma once
// Plug-ins: shared libraries that register operators, engines, modules and tensor types.

#include <filesystem>

namespace octet {

// Loads a shared library that was compiled with octet's headers of this version. Its static objects
// register what it brings (OCTET_OP, OCTET_MODULE, register_engine ...), and it has a function
// `extern "C" int octet_plugin(int major, int minor)`, which is called with the version of the
// library that runs; another result than 0 is an Error. What a plug-in registered stays for the
// life of the process. Errors: not_found, where it cannot be loaded; invalid_argument, where it has
// no such function; unsupported, where that refuses.
void load_plugin(const std::filesystem::path& path);

}  // namespace octet
