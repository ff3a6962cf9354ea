#pragma once
// Telling PyTorch's files from others.

#include <string_view>

namespace octet::io {

// Whether a file that starts with these bytes is a zip archive or a pickle.
bool is_pytorch(std::string_view bytes);

}  // namespace octet::io
