#pragma once
// Files as a whole: mapped for reading, replaced atomically for writing.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "octet/base/buffer.h"

namespace octet {

// A whole file mapped into memory. Pages come from the disk when they are first touched. The
// mapping is private and copy-on-write: a tensor that lies in it may be written to, which changes
// neither the file nor any other mapping of it. kBufferSlack bytes after the end are readable.
//
// The file must not be shortened by someone else while it is mapped (the system then kills the
// process, SIGBUS); replacing it by write_file_atomically is safe: the mapping keeps showing the
// old contents.
class MappedFile : public std::enable_shared_from_this<MappedFile> {
 public:
  // Error not_found if there is no such file, io if it cannot be read or is no regular file: a
  // directory, a pipe or a device, which may have no end or keep the reader waiting.
  static std::shared_ptr<MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // Bytes [offset, offset + bytes) as a Buffer that keeps the file mapped. It starts wherever the
  // file has it: only as aligned as offset is. Error unless the range lies within the file.
  Buffer range(size_t offset, size_t bytes);

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // bytes of address space to unmap
};

// Gives the memory behind bytes [data, data + bytes) back to the system as far as they lie in a
// MappedFile and still are what the file holds: they come from there again if they are touched.
// What was written to stays. For weights that have been packed.
void forget_file_pages(const void* data, size_t bytes);

// Where the callback of write_file_atomically puts its bytes, one after the other.
class FileWriter {
 public:
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  // Appends bytes. Error io if the system refuses (disk full, ...).
  void write(const void* data, size_t bytes);
  void write(const std::string& text) { write(text.data(), text.size()); }
  // Bytes written so far.
  uint64_t position() const { return position_; }

 private:
  friend void write_file_atomically(const std::filesystem::path&,
                                    const std::function<void(FileWriter&)>&);
  FileWriter(const std::filesystem::path& shown, int fd) : shown_(shown), fd_(fd) {}
  void flush();
  void put(const std::byte* data, size_t bytes);

  std::filesystem::path shown_;  // the name errors use
  int fd_;
  uint64_t position_ = 0;
  std::unique_ptr<std::byte[]> pending_;
  size_t pending_bytes_ = 0;
};

// Creates or replaces the file at path so that, whatever happens, path holds either all of the new
// contents or exactly what it held before: writes a temporary file in the same directory, syncs it
// to disk, renames it and syncs the directory. The temporary file is removed on failure, also when
// `write` throws (the exception passes through). An existing file keeps its permissions; a symbolic
// link keeps pointing where it did; something that is not a regular file (/dev/stdout, a pipe) is
// written to directly. Errors: io, naming the path and the system's reason.
//
// A program that is killed leaves its temporary file, `.octet-PID-N.tmp`. The next write to that
// directory removes those that no living writer holds (each holds a lock on its own).
void write_file_atomically(const std::filesystem::path& path,
                           const std::function<void(FileWriter&)>& write);
void write_file_atomically(const std::filesystem::path& path, const std::string& contents);

// The errors of write_file_atomically that can be known before there is anything to write: no such
// directory, one that may not be written to, a read-only file system, a name that is too long or a
// directory's. Makes a temporary file and removes it; what is at `path` stays as it is.
void check_writable(const std::filesystem::path& path);

// The whole file as a string. Errors as MappedFile::open.
std::string read_file(const std::filesystem::path& path);

}  // namespace octet
