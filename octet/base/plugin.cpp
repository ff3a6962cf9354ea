#include "octet/base/plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "octet/base/error.h"
#include "octet/base/version.h"

namespace octet {

void load_plugin(const std::filesystem::path& path) {
  // A bare name would be looked for in the system's folders.
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    fail(ErrorCode::not_found, fmt::format("{}: cannot be loaded as a plug-in: {}", path.string(),
                                           why ? why : "unknown"));
  }
  // From here on the library stays loaded: what it registered may be in use.
  using Init = int (*)(int, int);
  const auto init = reinterpret_cast<Init>(dlsym(library, "octet_plugin"));
  if (!init)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is no plug-in of octet; it has no function octet_plugin(int major, int "
                     "minor)",
                     path.string()));
  if (const int status = init(OCTET_VERSION_MAJOR, OCTET_VERSION_MINOR); status != 0)
    fail(ErrorCode::unsupported,
         fmt::format("{}: does not work with octet {}: octet_plugin returned {}", path.string(),
                     version(), status));
}

}  // namespace octet
