// The format: PKWARE's APPNOTE.TXT 6.3.
#include <algorithm>
#include <cstring>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/io/zip_impl.h"

namespace octet::zip {
namespace {

uint16_t u16(const std::byte* p) {
  return static_cast<uint16_t>(static_cast<unsigned>(p[0]) | static_cast<unsigned>(p[1]) << 8);
}
uint32_t u32(const std::byte* p) { return u16(p) | static_cast<uint32_t>(u16(p + 2)) << 16; }
uint64_t u64(const std::byte* p) { return u32(p) | static_cast<uint64_t>(u32(p + 4)) << 32; }

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56,
                 kLocatorSize = 20;
constexpr uint16_t kUtf8 = 1 << 11;  // flag
constexpr uInt kPiece = 1u << 30;    // zlib counts in 32 bits: more is done in pieces

// Little-endian numbers for the writer.
struct Record {
  std::string bytes;
  Record& add16(uint64_t v) { return add(v, 2); }
  Record& add32(uint64_t v) { return add(v, 4); }
  Record& add(uint64_t v, int n) {
    for (int i = 0; i < n; ++i) bytes += static_cast<char>(v >> 8 * i & 255);
    return *this;
  }
};

}  // namespace

// -- reading a member -----------------------------------------------------------------------------

Source::Source(std::string where, const std::byte* data, uint64_t packed, uint64_t size,
               bool deflated)
    : where_(std::move(where)), size_(size), data_(data), packed_(packed), deflated_(deflated) {
  if (deflated_)
    OCTET_CHECK(inflateInit2(&stream_, -MAX_WBITS) == Z_OK, io, "{}: zlib does not start", where_);
}

Source::~Source() {
  if (deflated_) inflateEnd(&stream_);
}

void Source::read(void* to, uint64_t bytes) {
  OCTET_CHECK(bytes <= left(), corrupt, "{}: truncated: expected {} more bytes, {} are left",
              where_, bytes, left());
  auto* out = static_cast<Bytef*>(to);
  position_ += bytes;
  while (bytes > 0) {
    auto piece = static_cast<uInt>(std::min<uint64_t>(bytes, kPiece));
    if (deflated_) {
      inflate_into(out, piece);
    } else {
      std::memcpy(out, data_, piece);
      data_ += piece;
    }
    crc_ = static_cast<uint32_t>(::crc32(crc_, out, piece));
    out += piece;
    bytes -= piece;
  }
}

void Source::inflate_into(Bytef* out, uInt bytes) {
  stream_.next_out = out;
  stream_.avail_out = bytes;
  while (stream_.avail_out > 0) {
    if (stream_.avail_in == 0) {
      auto piece = static_cast<uInt>(std::min<uint64_t>(packed_, kPiece));
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(data_));
      stream_.avail_in = piece;
      data_ += piece;
      packed_ -= piece;
    }
    int status = inflate(&stream_, Z_NO_FLUSH);
    if (stream_.avail_out == 0 && (status == Z_OK || status == Z_STREAM_END)) return;
    bool all_given = stream_.avail_in == 0 && packed_ == 0;
    OCTET_CHECK(status == Z_OK && !all_given, corrupt, "{}: the compressed data is damaged ({})",
                where_, stream_.msg ? stream_.msg : "it ends early");
  }
}

std::string shown(std::string name) {
  for (char& c : name)
    if ((c >= 0 && c < ' ') || c == '\x7f') c = '?';
  return name;
}

// -- reading the directory ------------------------------------------------------------------------

Archive::Archive(const std::filesystem::path& path, std::string kind)
    : file_(MappedFile::open(path)), name_(path.string()), kind_(std::move(kind)) {
  read_directory();
}

void Archive::read_directory() {
  const std::byte* data = file_->data();
  uint64_t size = file_->size();
  OCTET_CHECK(size >= 4 && data[0] == std::byte{'P'} && data[1] == std::byte{'K'}, corrupt,
              "{}: not {} (it does not start as a zip archive does)", name_, kind_);
  // The end record is the last thing in the file but for a comment of up to 65,535 bytes.
  uint64_t end = size;
  for (uint64_t tail = kEndSize; tail <= size && tail <= kEndSize + 65535; ++tail) {
    const std::byte* p = data + size - tail;
    if (u32(p) == kEnd && u16(p + 20) == tail - kEndSize) {
      end = size - tail;
      break;
    }
  }
  OCTET_CHECK(end != size, corrupt,
              "{}: truncated: the zip archive has no end record; copy or save it again", name_);
  uint64_t count = u16(data + end + 10), bytes = u32(data + end + 12), start = u32(data + end + 16);
  if (count == 0xffff || bytes == 0xffffffff || start == 0xffffffff) {
    OCTET_CHECK(end >= kLocatorSize && u32(data + end - kLocatorSize) == kLocator64, corrupt,
                "{}: the zip archive has no zip64 locator", name_);
    uint64_t at = u64(data + end - kLocatorSize + 8);
    OCTET_CHECK(at <= end && end - at >= kEnd64Size && u32(data + at) == kEnd64, corrupt,
                "{}: the zip64 end record lies outside the file", name_);
    count = u64(data + at + 32);
    bytes = u64(data + at + 40);
    start = u64(data + at + 48);
  }
  OCTET_CHECK(start <= end && bytes <= end - start && count <= bytes / kCentralSize, corrupt,
              "{}: the zip directory ({} members, {} bytes at {}) does not fit in the file", name_,
              count, bytes, start);

  std::set<std::string> names;
  uint64_t at = start, limit = start + bytes;
  for (uint64_t i = 0; i < count; ++i) {
    OCTET_CHECK(limit - at >= kCentralSize && u32(data + at) == kCentral, corrupt,
                "{}: member {} of the zip directory is damaged", name_, i);
    const std::byte* p = data + at;
    uint64_t name_size = u16(p + 28), extra_size = u16(p + 30), comment_size = u16(p + 32);
    OCTET_CHECK(name_size + extra_size + comment_size <= limit - at - kCentralSize, corrupt,
                "{}: member {} of the zip directory is truncated", name_, i);
    Member m;
    m.name.assign(reinterpret_cast<const char*>(p + kCentralSize), name_size);
    m.method = u16(p + 10);
    m.crc = u32(p + 16);
    m.packed = u32(p + 20);
    m.size = u32(p + 24);
    m.local_header = u32(p + 42);
    // The zip64 extra field holds, in this order, those of the three that did not fit in 32 bits.
    const std::byte* extra = p + kCentralSize + name_size;
    for (uint64_t e = 0; e + 4 <= extra_size;) {
      uint64_t id = u16(extra + e), length = u16(extra + e + 2);
      OCTET_CHECK(length <= extra_size - e - 4, corrupt, "{}: {}: its zip extra field is damaged",
                  name_, shown(m.name));
      uint64_t field = e + 4, field_end = e + 4 + length;
      if (id == 1)
        for (uint64_t* v : {&m.size, &m.packed, &m.local_header})
          if (*v == 0xffffffff) {
            OCTET_CHECK(field + 8 <= field_end, corrupt, "{}: {}: its zip64 sizes are missing",
                        name_, shown(m.name));
            *v = u64(extra + field);
            field += 8;
          }
      e = field_end;
    }
    OCTET_CHECK((u16(p + 8) & 1) == 0, unsupported,
                "{}: {} is encrypted; save it without a password", name_, shown(m.name));
    OCTET_CHECK(names.insert(m.name).second, corrupt, "{}: {} is there twice", name_,
                shown(m.name));
    members_.push_back(std::move(m));
    at += kCentralSize + name_size + extra_size + comment_size;
  }
}

uint64_t Archive::locate(const Member& m, const std::string& where) const {
  const std::byte* data = file_->data();
  uint64_t size = file_->size();
  OCTET_CHECK(m.method == 0 || m.method == 8, unsupported,
              "{}: zip compression method {}; expected 0 (stored) or 8 (deflated)", where,
              m.method);
  OCTET_CHECK(m.local_header <= size && size - m.local_header >= kLocalSize &&
                  u32(data + m.local_header) == kLocal,
              corrupt, "{}: its zip header at {} lies outside the file or is damaged", where,
              m.local_header);
  const std::byte* p = data + m.local_header;
  uint64_t skip = kLocalSize + u16(p + 26) + u16(p + 28), room = size - m.local_header;
  OCTET_CHECK(skip <= room && m.packed <= room - skip, corrupt,
              "{}: truncated: {} bytes at {} of a file of {} bytes", where, m.packed,
              m.local_header + skip, size);
  // Deflate makes no more than 1,032 bytes of one: larger claims would only make us allocate
  // memory.
  OCTET_CHECK(m.method == 0 ? m.size == m.packed : m.size / 1032 <= m.packed, corrupt,
              "{}: {} bytes cannot come from {} packed ones", where, m.size, m.packed);
  return m.local_header + skip;
}

std::unique_ptr<Source> Archive::open(const Member& m, std::string where) const {
  const std::byte* packed = file_->data() + locate(m, where);
  return std::make_unique<Source>(std::move(where), packed, m.packed, m.size, m.method == 8);
}

Buffer Archive::stored(const Member& m, const std::string& where) const {
  OCTET_CHECK(m.method == 0, internal, "{}: is not stored", where);
  return file_->range(locate(m, where), m.size);
}

// -- writing --------------------------------------------------------------------------------------

void Writer::check_room(uint64_t bytes) const {
  OCTET_CHECK(file_.position() + bytes < 0xffffffff && members_.size() < 0xfffe, unsupported,
              "{}: an .npz of 4 GiB or more cannot be written; use several files or safetensors",
              path_);
}

void Writer::add(const std::string& name, const std::vector<std::pair<const void*, size_t>>& parts,
                 bool compress) {
  OCTET_CHECK(name.size() <= 65535, invalid_argument,
              "{}: a name has {} bytes; expected at most 65535", path_, name.size());
  Member m;
  m.name = name;
  m.local_header = file_.position();
  for (auto [data, bytes] : parts) m.size += bytes;
  check_room(m.size + kLocalSize + name.size());
  auto crc = ::crc32(0, nullptr, 0);
  for (auto [data, bytes] : parts) crc = ::crc32_z(crc, static_cast<const Bytef*>(data), bytes);
  m.crc = static_cast<uint32_t>(crc);
  m.packed = m.size;

  // Sizes go before the data, so the data is packed in memory first.
  std::vector<Bytef> packed;
  if (compress) {
    z_stream stream{};
    OCTET_CHECK(deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK, io,
                "{}: zlib does not start", path_);
    packed.resize(deflateBound(&stream, m.size));
    stream.next_out = packed.data();
    stream.avail_out = static_cast<uInt>(packed.size());  // below 4 GiB, or deflate fails below
    int status = Z_OK;
    for (size_t i = 0; i < parts.size() && status == Z_OK; ++i) {
      stream.next_in = static_cast<Bytef*>(const_cast<void*>(parts[i].first));
      stream.avail_in = static_cast<uInt>(parts[i].second);
      status = deflate(&stream, i + 1 == parts.size() ? Z_FINISH : Z_NO_FLUSH);
    }
    m.packed = stream.total_out;
    deflateEnd(&stream);
    OCTET_CHECK(status == Z_STREAM_END, internal, "{}: {}: zlib cannot compress it ({})", path_,
                name, status);
    m.method = 8;
  }
  Record header;  // version 2.0, names in UTF-8; no time: 1980-01-01 is the format's zero
  header.add32(kLocal).add16(20).add16(kUtf8).add16(m.method).add16(0).add16(0x21);
  header.add32(m.crc).add32(m.packed).add32(m.size).add16(name.size()).add16(0);
  file_.write(header.bytes + name);
  if (compress)
    file_.write(packed.data(), m.packed);
  else
    for (auto [data, bytes] : parts) file_.write(data, bytes);
  members_.push_back(std::move(m));
}

void Writer::finish() {
  uint64_t start = file_.position();
  for (const Member& m : members_) {
    check_room(kCentralSize + m.name.size());
    Record entry;
    entry.add32(kCentral).add16(20).add16(20).add16(kUtf8).add16(m.method).add16(0).add16(0x21);
    entry.add32(m.crc)
        .add32(m.packed)
        .add32(m.size)
        .add16(m.name.size())
        .add16(0)
        .add16(0)
        .add16(0)
        .add16(0);
    entry.add32(uint64_t{0600} << 16).add32(m.local_header);
    file_.write(entry.bytes + m.name);
  }
  uint64_t bytes = file_.position() - start;
  Record end;
  end.add32(kEnd)
      .add16(0)
      .add16(0)
      .add16(members_.size())
      .add16(members_.size())
      .add32(bytes)
      .add32(start)
      .add16(0);
  file_.write(end.bytes);
}

}  // namespace octet::zip
