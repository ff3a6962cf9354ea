#pragma once
// Plug-ins: shared libraries that register operators, engines, modules and tensor types.

#include <filesystem>

namespace octet {

// Loads a shared library that was compiled with octet's headers of this version, preferably with
// -fvisibility=hidden, so that it uses its own copies of what they define. Its static objects
// register what it brings (OCTET_OP, OCTET_MODULE, register_engine ...), and it has the function
// octet_plugin below. What a plug-in registered stays for the life of the process. Errors:
// not_found, where it cannot be loaded; invalid_argument, where it has no such function;
// unsupported, where that refuses.
void load_plugin(const std::filesystem::path& path);

}  // namespace octet

// Defined by a plug-in, shown whatever visibility the plug-in is compiled with. It is called with
// the version of the library that runs; another result than 0 refuses it.
extern "C" __attribute__((visibility("default"))) int octet_plugin(int major, int minor);
