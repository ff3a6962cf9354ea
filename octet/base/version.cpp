#include "octet/base/version.h"

#define OCTET_TEXT_OF(x) #x
#define OCTET_TEXT(x) OCTET_TEXT_OF(x)

namespace octet {

const char* version() {
  return OCTET_TEXT(OCTET_VERSION_MAJOR) "." OCTET_TEXT(OCTET_VERSION_MINOR) "." OCTET_TEXT(
      OCTET_VERSION_PATCH);
}

}  // namespace octet
