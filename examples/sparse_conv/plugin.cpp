// The sparse convolution as a plug-in: what its static objects register is all it brings.
//
//   octet --plugin libsparse_conv.so inspect model.octet
#include <octet/base/plugin.h>
#include <octet/base/version.h>

extern "C" int octet_plugin(int major, int minor) {
  return major == OCTET_VERSION_MAJOR && minor == OCTET_VERSION_MINOR ? 0 : 1;
}
