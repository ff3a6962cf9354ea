#pragma once
// Zip archives, as far as .npz files and PyTorch's need them: the directory, members that are
// stored or deflated, CRCs. Every length in the file is checked against the file before it is used;
// what does not fit is an Error corrupt.

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "octet/base/file.h"

namespace octet::zip {

// How many bytes the compressed contents of a file may have: a small file must not fill the memory.
constexpr uint64_t kFreeInflated = uint64_t{256} << 20;
constexpr uint64_t kMaxInflation =
    100;  // times the file; weights and pictures compress by less than 10
inline uint64_t max_inflated(uint64_t file_bytes) {
  return std::max(kFreeInflated, file_bytes * kMaxInflation);
}

// A run of bytes that is read once, front to back: a plain file, or a member of an archive that is
// inflated on the way.
class Source {
 public:
  // `size` bytes come out of `packed` bytes at data (the same number unless deflated). `where`
  // starts every error.
  Source(std::string where, const std::byte* data, uint64_t packed, uint64_t size, bool deflated);
  ~Source();
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  const std::string& where() const { return where_; }
  uint64_t left() const { return size_ - position_; }
  uint32_t crc() const { return crc_; }  // of what was read so far

  // The next bytes; Error corrupt if there are not as many.
  void read(void* to, uint64_t bytes);

 private:
  void inflate_into(Bytef* out, uInt bytes);
  std::string where_;
  uint64_t size_, position_ = 0;
  const std::byte* data_;
  uint64_t packed_;  // bytes of data_ not yet given to zlib
  bool deflated_;
  z_stream stream_{};
  uint32_t crc_ = 0;
};

struct Member {
  std::string name;
  uint64_t packed = 0, size = 0, local_header = 0;
  uint32_t crc = 0;
  int method = 0;  // 0 stored, 8 deflated
};

// A member's name for errors, which are one line: control characters become '?'.
std::string shown(std::string name);

// An archive open for reading.
class Archive {
 public:
  // `kind` is what errors call a file that is no archive: "not an .npz file".
  Archive(const std::filesystem::path& path, std::string kind);
  const std::vector<Member>& members() const { return members_; }
  uint64_t file_bytes() const { return file_->size(); }
  // The contents of a member, not yet checked against its CRC. `where` names it in errors.
  std::unique_ptr<Source> open(const Member& member, std::string where) const;
  // The contents of a stored member where they lie in the mapped file, not yet checked against its
  // CRC.
  Buffer stored(const Member& member, const std::string& where) const;

 private:
  void read_directory();
  // Where the packed contents of a member begin.
  uint64_t locate(const Member& member, const std::string& where) const;
  std::shared_ptr<MappedFile> file_;
  std::string name_, kind_;
  std::vector<Member> members_;
};

// Writes an archive member by member; finish() writes the directory. Less than 4 GiB in all (no
// zip64).
class Writer {
 public:
  Writer(FileWriter& file, std::string path) : file_(file), path_(std::move(path)) {}
  // A member of the parts one after the other.
  void add(const std::string& name, const std::vector<std::pair<const void*, size_t>>& parts,
           bool compress);
  void finish();

 private:
  void check_room(uint64_t bytes) const;
  FileWriter& file_;
  std::string path_;
  std::vector<Member> members_;
};

}  // namespace octet::zip
