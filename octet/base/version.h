#pragma once
// The version of octet, by semantic versioning. CMakeLists.txt reads it from here.

#define OCTET_VERSION_MAJOR 0
#define OCTET_VERSION_MINOR 2
#define OCTET_VERSION_PATCH 0

namespace octet {

// "0.2.0", of the library that runs; OCTET_VERSION_* are of the headers a program was compiled
// with. Programs work with libraries of the same major and, while that is 0, minor version.
const char* version();

}  // namespace octet
