#include "octet/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::count_files;
using testing::expect_error;
using testing::slurp;
using testing::spill;
using testing::TempDir;

TEST(MappedFile, ShowsTheContents) {
  TempDir dir;
  spill(dir / "a", "hello");
  auto file = MappedFile::open(dir / "a");
  EXPECT_EQ(file->size(), 5u);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->data()), 5), "hello");
  EXPECT_EQ(read_file(dir / "a"), "hello");
}

TEST(MappedFile, AnEmptyFileIsFine) {
  TempDir dir;
  spill(dir / "a", "");
  EXPECT_EQ(MappedFile::open(dir / "a")->size(), 0u);
  EXPECT_EQ(read_file(dir / "a"), "");
}

// The slack after the last byte must be readable wherever in a page the file ends.
TEST(MappedFile, HasSlackAfterEverySize) {
  TempDir dir;
  auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t size : {size_t{1}, page - 64, page - 63, page - 1, page, page + 1, 2 * page}) {
    spill(dir / "a", std::string(size, 'x'));
    Buffer buffer = MappedFile::open(dir / "a")->range(0, size);
    volatile const std::byte* p = buffer.data();
    int sum = 0;
    for (size_t i = 0; i < size + kBufferSlack; ++i) sum += static_cast<int>(p[i]);
    EXPECT_EQ(sum, static_cast<int>(size) * 'x') << size;
  }
}

TEST(MappedFile, BuffersKeepItMapped) {
  TempDir dir;
  spill(dir / "a", "0123456789");
  Buffer buffer = MappedFile::open(dir / "a")->range(3, 4);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(buffer.data()), buffer.bytes()), "3456");
}

TEST(MappedFile, ForgottenPagesComeBackFromTheFileAndWrittenOnesStay) {
  TempDir dir;
  const size_t page = 4096;
  spill(dir / "a", std::string(4 * page, 'x'));
  auto file = MappedFile::open(dir / "a");
  Buffer all = file->range(0, 4 * page);
  // touched, all but the last
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(all.data()[i * page], std::byte{'x'});
  all.data()[page + 5] = std::byte{'y'};
  {
    // shown by pages that are the file's
    std::ofstream in_place(dir / "a", std::ios::in | std::ios::out | std::ios::binary);
    in_place << std::string(4 * page, 'z');
  }
  forget_file_pages(all.data(), all.bytes());
  EXPECT_EQ(all.data()[page + 5], std::byte{'y'});
  EXPECT_EQ(all.data()[page + 6], std::byte{'x'});
  EXPECT_EQ(all.data()[2 * page], std::byte{'z'});
  std::string elsewhere = "not of a file";
  forget_file_pages(elsewhere.data(), elsewhere.size());
  EXPECT_EQ(elsewhere, "not of a file");
}

TEST(MappedFile, WritingToItDoesNotChangeTheFile) {
  TempDir dir;
  spill(dir / "a", "0123");
  Buffer buffer = MappedFile::open(dir / "a")->range(0, 4);
  buffer.data()[0] = std::byte{'x'};
  EXPECT_EQ(slurp(dir / "a"), "0123");
  EXPECT_EQ(read_file(dir / "a"), "0123");
}

TEST(MappedFile, KeepsTheOldContentsWhenTheFileIsReplaced) {
  TempDir dir;
  spill(dir / "a", "old");
  auto file = MappedFile::open(dir / "a");
  write_file_atomically(dir / "a", "new contents");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->data()), file->size()), "old");
}

// A pipe without a writer would keep the reader waiting, /dev/zero never ends.
TEST(MappedFile, PipesAndDevicesAreErrorsAtOnce) {
  TempDir dir;
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::io, {"pipe: is a pipe", "expected a file"},
               [&] { read_file(dir / "pipe"); });
  expect_error(ErrorCode::io, {"/dev/zero: is a device"}, [&] { MappedFile::open("/dev/zero"); });
  std::filesystem::create_symlink("/dev/zero", dir / "link");
  expect_error(ErrorCode::io, {"link: is a device"}, [&] { MappedFile::open(dir / "link"); });
}

TEST(MappedFile, AnEmptyFileIsEmpty) {
  TempDir dir;
  spill(dir / "a", "");
  EXPECT_EQ(MappedFile::open(dir / "a")->size(), 0u);
  EXPECT_EQ(read_file(dir / "a"), "");
}

TEST(MappedFile, RejectsRangesOutsideTheFile) {
  TempDir dir;
  spill(dir / "a", "0123");
  auto file = MappedFile::open(dir / "a");
  EXPECT_NO_THROW(file->range(4, 0));
  for (auto [offset, bytes] :
       {std::pair<size_t, size_t>{0, 5}, {4, 1}, {5, 0}, {1, SIZE_MAX}, {SIZE_MAX, 2}})
    expect_error(ErrorCode::invalid_argument, {"a:"}, [&] { file->range(offset, bytes); });
}

TEST(MappedFile, ErrorsSayWhat) {
  TempDir dir;
  expect_error(ErrorCode::not_found, {"nothing", "no such file"},
               [&] { MappedFile::open(dir / "nothing"); });
  expect_error(ErrorCode::not_found, {"no such file"}, [&] { MappedFile::open(dir / "no/where"); });
  expect_error(ErrorCode::io, {"directory"}, [&] { MappedFile::open(dir.path()); });
}

TEST(WriteFile, CreatesAndReplaces) {
  TempDir dir;
  write_file_atomically(dir / "a", "one");
  EXPECT_EQ(slurp(dir / "a"), "one");
  write_file_atomically(dir / "a", "two, longer");
  EXPECT_EQ(slurp(dir / "a"), "two, longer");
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(WriteFile, KeepsTheOrderOfSmallAndLargePieces) {
  TempDir dir;
  std::string expected;
  write_file_atomically(dir / "a", [&](FileWriter& file) {
    for (int i = 0; i < 300; ++i) {
      std::string piece(static_cast<size_t>(i % 7 == 0 ? 70000 : i),
                        static_cast<char>('a' + i % 26));
      EXPECT_EQ(file.position(), expected.size());
      file.write(piece);
      expected += piece;
    }
  });
  EXPECT_EQ(slurp(dir / "a"), expected);
}

TEST(WriteFile, AFailureLeavesTheOldFileAndNothingElse) {
  TempDir dir;
  spill(dir / "a", "old");
  auto fail_late = [](FileWriter& file) {
    file.write(std::string(100000, 'x'));
    throw std::runtime_error("stop");
  };
  EXPECT_THROW(write_file_atomically(dir / "a", fail_late), std::runtime_error);
  EXPECT_EQ(slurp(dir / "a"), "old");
  EXPECT_THROW(write_file_atomically(dir / "b", fail_late), std::runtime_error);
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(WriteFile, KeepsPermissionsAndLinks) {
  TempDir dir;
  spill(dir / "real", "old");
  ASSERT_EQ(chmod((dir / "real").c_str(), 0640), 0);
  std::filesystem::create_symlink("real", dir / "link");
  write_file_atomically(dir / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_EQ(slurp(dir / "real"), "new");
  struct stat status {};
  ASSERT_EQ(stat((dir / "real").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST(WriteFile, NewFilesGetTheUsualPermissions) {
  TempDir dir;
  write_file_atomically(dir / "a", "x");
  struct stat status {};
  ASSERT_EQ(stat((dir / "a").c_str(), &status), 0);
  mode_t mask = umask(0);
  umask(mask);
  EXPECT_EQ(status.st_mode & 0777, 0666u & ~mask);
}

TEST(WriteFile, DevicesAreWrittenToNotReplaced) {
  write_file_atomically("/dev/null", "gone");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST(WriteFile, TakesNamesWithoutADirectory) {
  TempDir dir;
  auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  write_file_atomically("a", "x");
  std::filesystem::current_path(before);
  EXPECT_EQ(slurp(dir / "a"), "x");
}

TEST(WriteFile, LeftoversOfDeadWritersAreRemoved) {
  TempDir dir;
  spill(dir / ".octet-4194304-0.tmp", "left by a killed run");
  spill(dir / ".octet-1-17.tmp", "that process is another now");
  for (const char* others : {".octet-1.tmp", ".octet-1-2.tmp2", "octet-1-2.tmp", ".octet- 1-2.tmp",
                             ".octet-a-2.tmp", "x.tmp"})
    spill(dir / others, "not ours");
  std::filesystem::create_symlink("x.tmp", dir / ".octet-5-5.tmp");
  std::filesystem::create_directory(dir / ".octet-6-6.tmp");
  ASSERT_EQ(mkfifo((dir / ".octet-7-7.tmp").c_str(), 0600), 0);
  write_file_atomically(dir / "a", "new");
  EXPECT_FALSE(std::filesystem::exists(dir / ".octet-4194304-0.tmp"));
  EXPECT_FALSE(std::filesystem::exists(dir / ".octet-1-17.tmp"));
  EXPECT_EQ(count_files(dir.path()), 10u);
  EXPECT_EQ(slurp(dir / "x.tmp"), "not ours");
}

TEST(WriteFile, AKilledWritersLeftoverGoesALivingOnesStays) {
  TempDir dir;
  int ready[2], never[2];
  ASSERT_EQ(pipe(ready) + pipe(never), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    close(never[1]);
    write_file_atomically(dir / "slow", [&](FileWriter& file) {
      file.write(std::string(100000, 'x'));
      char c = 'r';
      (void)!::write(ready[1], &c, 1);
      (void)!::read(never[0], &c, 1);  // until killed
    });
    _exit(0);
  }
  char c;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  write_file_atomically(dir / "a", "one");
  EXPECT_EQ(count_files(dir.path()), 2u) << "a and what the other writes";
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(count_files(dir.path()), 2u);
  write_file_atomically(dir / "a", "two");
  EXPECT_EQ(count_files(dir.path()), 1u);
  for (int fd : {ready[0], ready[1], never[0], never[1]}) close(fd);
}

TEST(WriteFile, ManyWritersInOneDirectoryDoNotDisturbEachOther) {
  TempDir dir;
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t)
    writers.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i)
        EXPECT_NO_THROW(write_file_atomically(dir / std::to_string(t),
                                              std::string(70000, static_cast<char>('a' + t))));
    });
  for (auto& w : writers) w.join();
  EXPECT_EQ(count_files(dir.path()), 4u);
  for (int t = 0; t < 4; ++t)
    EXPECT_EQ(slurp(dir / std::to_string(t)), std::string(70000, static_cast<char>('a' + t)));
}

// A full disk, in little: the system refuses to let files grow further.
TEST(WriteFile, ARefusedWriteLeavesTheTargetUntouched) {
  TempDir dir;
  spill(dir / "a", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error(ErrorCode::io, {"a: cannot write", "File too large"},
               [&] { write_file_atomically(dir / "a", std::string(300000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(slurp(dir / "a"), "old");
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CheckWritable, SaysBeforehandWhatAWriteWouldSay) {
  TempDir dir;
  EXPECT_NO_THROW(check_writable(dir / "a"));
  EXPECT_NO_THROW(check_writable("/dev/null"));
  expect_error(ErrorCode::io, {"no/a: cannot write", "no directory", "make it first"},
               [&] { check_writable(dir / "no/a"); });
  expect_error(ErrorCode::io, {"is a directory"}, [&] { check_writable(dir.path()); });
  expect_error(ErrorCode::io, {"name of a file"}, [&] { check_writable(""); });
  expect_error(ErrorCode::io, {"File name too long"},
               [&] { check_writable(dir / std::string(300, 'n')); });
  EXPECT_EQ(count_files(dir.path()), 0u);
  // Permissions let root write everywhere, but a file system may have its reasons: the kernel's
  // own.
  expect_error(ErrorCode::io, {"/proc/self/fdinfo/a: cannot write: /proc/self/fdinfo: "},
               [] { check_writable("/proc/self/fdinfo/a"); });
  if (geteuid() != 0) {
    std::filesystem::permissions(
        dir.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    expect_error(ErrorCode::io, {"a: cannot write", "Permission denied", "check the permissions"},
                 [&] { check_writable(dir / "a"); });
    std::filesystem::permissions(dir.path(), std::filesystem::perms::owner_all);
  }
}

TEST(WriteFile, ErrorsSayWhat) {
  TempDir dir;
  expect_error(ErrorCode::io, {"a: cannot write", "no directory", "make it first"},
               [&] { write_file_atomically(dir / "no/a", "x"); });
  expect_error(ErrorCode::io, {"is a directory"}, [&] { write_file_atomically(dir.path(), "x"); });
  expect_error(ErrorCode::io, {"name of a file"}, [&] { write_file_atomically("", "x"); });
  expect_error(ErrorCode::io, {"/dev/full: cannot write", "No space left", "free some space"},
               [&] { write_file_atomically("/dev/full", "x"); });
}

}  // namespace
}  // namespace octet
