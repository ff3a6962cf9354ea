#pragma once
// Files as octet 0.1 wrote them: of format 1, without checksums. What is damaged in them is found
// by the checks of each field.

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace octet::testing {

// The bytes of a file that octet wrote, without its checksums and of this format.
inline std::string without_checksums(const std::string& bytes, int format = 1) {
  size_t size = 0;
  for (size_t i = 8; i-- > 0;) size = size << 8 | static_cast<unsigned char>(bytes[i]);
  auto header = nlohmann::json::parse(bytes.substr(8, size));
  auto& metadata = header["__metadata__"];
  for (const char* key : {"octet.checksum.header", "octet.checksum.tensors"})
    if (metadata.erase(key) != 1) throw std::runtime_error(std::string("no ") + key);
  for (auto& [key, value] : metadata.items()) {
    if (!key.starts_with("octet.")) continue;
    auto json = nlohmann::ordered_json::parse(value.get<std::string>());
    json["format"] = format;
    value = json.dump();
  }
  std::string text = header.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  std::string length;
  for (size_t i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> 8 * i & 255);
  return length + text + bytes.substr(8 + size);
}

}  // namespace octet::testing
