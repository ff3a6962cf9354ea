#include "octet/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr size_t kPending = 1 << 16;  // small writes are gathered up to this many bytes

std::string reason(int error) {
  const char* advice = "";
  switch (error) {
    case EACCES:
    case EPERM:
      advice = "; check the permissions of the file and its directory";
      break;
    case ENOSPC:
    case EDQUOT:
      advice = "; free some space or write elsewhere";
      break;
    case EROFS:
      advice = "; the file system is read-only, write elsewhere";
      break;
    case EMFILE:
    case ENFILE:
      advice = "; raise the limit with ulimit -n";
      break;
    case ENAMETOOLONG:
      advice = "; use a shorter name";
      break;
    default:
      break;
  }
  return std::string(std::strerror(error)) + advice;
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "directory";
  if (S_ISFIFO(mode)) return "pipe";
  if (S_ISSOCK(mode)) return "socket";
  return "device";
}

// Closes a descriptor at the end of a scope.
struct Descriptor {
  int fd;
  explicit Descriptor(int fd) : fd(fd) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// The files that are mapped now: where each begins and ends. Never destroyed: tensors of static
// objects may outlive it otherwise.
struct Mappings {
  std::mutex mutex;
  std::map<const std::byte*, const std::byte*> ends;
};
Mappings& mappings() {
  static Mappings& m = *new Mappings;
  return m;
}

}  // namespace

// -- reading --------------------------------------------------------------------------------------

std::shared_ptr<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK the opening of a pipe waits for someone to write to it.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.fd < 0) {
    int error = errno;
    std::error_code ignored;
    OCTET_CHECK(error != ENOENT && error != ENOTDIR, not_found,
                "{}: no such file; check the path (relative paths start at {})", path.string(),
                std::filesystem::current_path(ignored).string());
    OCTET_FAIL(io, "{}: cannot open: {}", path.string(), reason(error));
  }
  struct stat status {};
  OCTET_CHECK(::fstat(file.fd, &status) == 0, io, "{}: cannot open: {}", path.string(),
              reason(errno));
  OCTET_CHECK(S_ISREG(status.st_mode), io, "{}: is a {}; expected a file{}", path.string(),
              kind_of(status.st_mode),
              S_ISDIR(status.st_mode) ? "" : ": save what it gives to a file first");

  std::shared_ptr<MappedFile> result(new MappedFile);
  result->path_ = path;
  auto size = static_cast<size_t>(status.st_size);
  auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  size_t file_pages = (size + page - 1) / page * page;
  // One anonymous page more than the file has, and the file mapped over the start: so that the
  // slack after the last byte is readable even if the file ends exactly at a page's end.
  size_t reserved = file_pages + page;
  void* start = ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  OCTET_CHECK(start != MAP_FAILED, io, "{}: cannot map {} bytes: {}", path.string(), size,
              reason(errno));
  result->data_ = static_cast<std::byte*>(start);
  result->size_ = size;
  result->mapped_ = reserved;    // from here on the destructor unmaps
  if (size == 0) return result;  // nothing to map
  void* mapped = ::mmap(start, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file.fd, 0);
  OCTET_CHECK(mapped != MAP_FAILED, io, "{}: cannot map {} bytes: {}", path.string(), size,
              reason(errno));
  std::lock_guard lock(mappings().mutex);
  mappings().ends[result->data_] = result->data_ + size;
  return result;
}

MappedFile::~MappedFile() {
  if (!mapped_) return;
  {
    std::lock_guard lock(mappings().mutex);
    mappings().ends.erase(data_);
  }
  ::munmap(data_, mapped_);
}

void forget_file_pages(const void* data, size_t bytes) {
  // Which pages still are the file's: of a private mapping, those that were written to are
  // anonymous memory.
  constexpr uint64_t kPresent = uint64_t{1} << 63, kOfFile = uint64_t{1} << 61;
  static const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  auto* first = static_cast<const std::byte*>(data);
  std::lock_guard lock(mappings().mutex);
  auto mapping = mappings().ends.upper_bound(first);
  if (pagemap < 0 || bytes == 0 || mapping == mappings().ends.begin()) return;
  --mapping;
  const auto [start, end] = *mapping;
  if (first + bytes > end) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t last_page = (static_cast<size_t>(first - start) + bytes + page - 1) / page;
  uint64_t flags[512];
  for (size_t p = static_cast<size_t>(first - start) / page; p < last_page;) {
    const size_t count = std::min(last_page - p, std::size(flags));
    const auto at =
        static_cast<off_t>((reinterpret_cast<uintptr_t>(start) / page + p) * sizeof flags[0]);
    if (::pread(pagemap, flags, count * sizeof flags[0], at) !=
        static_cast<ssize_t>(count * sizeof flags[0]))
      return;
    auto is_files = [&](size_t i) { return (flags[i] & kPresent) && (flags[i] & kOfFile); };
    for (size_t i = 0; i < count; ++i) {
      const size_t begin = i;
      while (i < count && is_files(i)) ++i;
      if (i > begin)
        ::madvise(const_cast<std::byte*>(start) + (p + begin) * page, (i - begin) * page,
                  MADV_DONTNEED);
    }
    p += count;
  }
}

Buffer MappedFile::range(size_t offset, size_t bytes) {
  OCTET_CHECK(offset <= size_ && bytes <= size_ - offset, invalid_argument,
              "{}: bytes {} to {} were asked for, the file has {}", path_.string(), offset,
              offset + bytes, size_);
  return Buffer::wrap(data_ + offset, bytes, shared_from_this());
}

std::string read_file(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  return std::string(reinterpret_cast<const char*>(file->data()), file->size());
}

// -- writing --------------------------------------------------------------------------------------

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::put(const std::byte* data, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = ::write(fd_, data, bytes);
    if (n < 0 && errno == EINTR) continue;
    OCTET_CHECK(n >= 0, io, "{}: cannot write: {}", shown_.string(), reason(errno));
    data += n;
    bytes -= static_cast<size_t>(n);
  }
}

void FileWriter::flush() {
  put(pending_.get(), pending_bytes_);
  pending_bytes_ = 0;
}

void FileWriter::write(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const auto* from = static_cast<const std::byte*>(data);
  if (pending_bytes_ + bytes > kPending) flush();
  if (bytes > kPending) {
    put(from, bytes);
  } else {
    if (!pending_) pending_ = std::make_unique<std::byte[]>(kPending);
    std::memcpy(pending_.get() + pending_bytes_, from, bytes);
    pending_bytes_ += bytes;
  }
  position_ += bytes;
}

namespace {

// Where a write to `path` goes.
struct Destination {
  bool exists = false;
  struct stat status {};
  // what is replaced: through a symbolic link the file it names, not the link
  std::filesystem::path target;
  std::filesystem::path directory;  // the target's

  // a device or a pipe is written to
  bool replaced() const { return !exists || S_ISREG(status.st_mode); }
};

Destination destination_of(const std::filesystem::path& path) {
  OCTET_CHECK(!path.filename().empty(), io, "{}: cannot write: expected the name of a file",
              path.string());
  Destination d;
  d.exists = ::stat(path.c_str(), &d.status) == 0;
  OCTET_CHECK(d.exists || errno == ENOENT || errno == ENOTDIR, io, "{}: cannot write: {}",
              path.string(), reason(errno));
  OCTET_CHECK(!(d.exists && S_ISDIR(d.status.st_mode)), io,
              "{}: cannot write: it is a directory; give a file name", path.string());
  std::error_code ignored;
  if (d.exists) d.target = std::filesystem::canonical(path, ignored);
  if (d.target.empty()) d.target = path;
  d.directory = d.target.parent_path().empty() ? "." : d.target.parent_path();
  OCTET_CHECK(std::filesystem::is_directory(d.directory, ignored), io,
              "{}: cannot write: there is no directory {}; make it first", path.string(),
              d.directory.string());
  return d;
}

bool is_temporary_name(const std::string& name) {
  int end = 0;
  (void)std::sscanf(name.c_str(), ".octet-%*[0-9]-%*[0-9].tmp%n", &end);
  return end > 0 && end == static_cast<int>(name.size());
}

// Creates `.octet-PID-N.tmp` in the directory and locks it, for as long as it is open: nobody else
// removes it then.
int create_temporary(const std::filesystem::path& directory, std::filesystem::path& name) {
  static std::atomic<uint64_t> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    name = directory / fmt::format(".octet-{}-{}.tmp", ::getpid(), counter.fetch_add(1));
    int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) continue;
    if (fd < 0) return fd;
    // Somebody who cleans up may have come between: then the lock is taken, or the file is gone.
    // Where a file system has no locks nobody can take one, so nobody cleans up.
    struct stat status {};
    const bool taken = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && ::fstat(fd, &status) == 0 && status.st_nlink > 0) return fd;
    ::close(fd);
  }
  errno = EEXIST;
  return -1;
}

// Temporary files of writers that are gone. What cannot be opened, locked or removed stays. (Not by
// std::filesystem: libstdc++ 12's directory_iterator ends the program where memory runs out.)
void remove_leftovers(const std::filesystem::path& directory) {
  const auto close = [](DIR* d) { ::closedir(d); };
  const std::unique_ptr<DIR, decltype(close)> all(::opendir(directory.c_str()), close);
  if (!all) return;
  const int at = ::dirfd(all.get());
  while (const dirent* entry = ::readdir(all.get())) {
    const char* name = entry->d_name;
    if (!is_temporary_name(name)) continue;
    Descriptor file(::openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.fd < 0 || ::flock(file.fd, LOCK_EX | LOCK_NB) != 0) continue;
    // Unless it has been renamed since, and the name is another's now.
    struct stat opened {
    }, named{};
    if (::fstat(file.fd, &opened) == 0 && S_ISREG(opened.st_mode) &&
        ::fstatat(at, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_dev == opened.st_dev &&
        named.st_ino == opened.st_ino)
      ::unlinkat(at, name, 0);
  }
}

}  // namespace

void check_writable(const std::filesystem::path& path) {
  const Destination d = destination_of(path);
  if (!d.replaced()) {
    OCTET_CHECK(::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0, io,
                "{}: cannot write: {}", path.string(), reason(errno));
    return;
  }
  // Permissions do not say everything (read-only file systems, quotas, root): it is tried.
  std::filesystem::path temporary;
  Descriptor file(create_temporary(d.directory, temporary));
  OCTET_CHECK(file.fd >= 0, io, "{}: cannot write: {}: {}", path.string(), d.directory.string(),
              reason(errno));
  ::unlink(temporary.c_str());
}

void write_file_atomically(const std::filesystem::path& path,
                           const std::function<void(FileWriter&)>& write) {
  const Destination d = destination_of(path);
  if (!d.replaced()) {
    FileWriter writer(path, ::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    OCTET_CHECK(writer.fd_ >= 0, io, "{}: cannot write: {}", path.string(), reason(errno));
    write(writer);
    writer.flush();
    return;
  }
  remove_leftovers(d.directory);
  std::filesystem::path temporary;
  const int fd = create_temporary(d.directory, temporary);
  OCTET_CHECK(fd >= 0, io, "{}: cannot write: {}: {}", path.string(), d.directory.string(),
              reason(errno));
  try {
    FileWriter writer(path, fd);
    // Best effort: another user's file may refuse.
    if (d.exists) (void)!::fchmod(fd, d.status.st_mode & 07777);
    write(writer);
    writer.flush();
    OCTET_CHECK(::fsync(fd) == 0, io, "{}: cannot write: {}", path.string(), reason(errno));
    // Renamed while a second descriptor holds the lock: who cleans up finds no temporary file that
    // nobody holds.
    Descriptor lock(::dup(fd));
    writer.fd_ = -1;
    // Some file systems (NFS) report a failed write only here.
    OCTET_CHECK(::close(fd) == 0, io, "{}: cannot write: {}", path.string(), reason(errno));
    OCTET_CHECK(::rename(temporary.c_str(), d.target.c_str()) == 0, io, "{}: cannot write: {}",
                path.string(), reason(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  // Makes the rename itself survive a power cut. Not all file systems can; the new contents are in
  // place either way.
  Descriptor parent(::open(d.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.fd >= 0) ::fsync(parent.fd);
}

void write_file_atomically(const std::filesystem::path& path, const std::string& contents) {
  write_file_atomically(path, [&](FileWriter& file) { file.write(contents); });
}

}  // namespace octet
