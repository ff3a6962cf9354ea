#include "octet/base/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

namespace octet {
namespace {

TEST(Progress, TheLineSaysHowFarAndHowLong) {
  EXPECT_EQ(progress_line("calibrating", 500, 1000, 10, 79),
            "calibrating  [###############...............]  500/1000  50%  50/s  0:10 left");
  EXPECT_EQ(progress_line("a", 0, 10, 0, 79), "a  [..............................]  0/10  0%");
  EXPECT_EQ(progress_line("a", 10, 10, 4, 79),
            "a  [##############################]  10/10  100%  2.5/s");
  EXPECT_TRUE(progress_line("a", 1, 7201, 1, 79).ends_with("  1/7201  0%  1.0/s  2:00:00 left"));
  EXPECT_EQ(progress_line("a", 1, 10, 100, 60),
            "a  [##.....................]  1/10  10%  0.6/min  15:00 left");
}

TEST(Progress, WithoutATotalThereIsACount) {
  EXPECT_EQ(progress_line("a", 30, 0, 2, 79), "a  30  15/s");
}

TEST(Progress, TheLineFitsTheTerminal) {
  for (int width = 0; width < 120; ++width)
    for (int64_t done : {0, 5, 99, 100, 101})
      EXPECT_LE(progress_line("evaluating", done, 100, 3, width).size(),
                static_cast<size_t>(width));
}

// What `fn` writes to standard error, this being a terminal (a pseudo-terminal of 60 columns) or a
// pipe.
std::string standard_error(bool terminal, const std::function<void()>& fn) {
  int read_end = -1, write_end = -1;
  if (terminal) {
    read_end = posix_openpt(O_RDWR | O_NOCTTY);
    EXPECT_EQ(grantpt(read_end), 0);
    EXPECT_EQ(unlockpt(read_end), 0);
    write_end = open(ptsname(read_end), O_RDWR | O_NOCTTY);
    winsize size{};
    size.ws_col = 60;
    ioctl(write_end, TIOCSWINSZ, &size);
  } else {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    read_end = ends[0];
    write_end = ends[1];
  }
  int before = dup(STDERR_FILENO);
  dup2(write_end, STDERR_FILENO);
  fn();
  dup2(before, STDERR_FILENO);
  close(before);
  std::string text;
  char piece[4096];
  pollfd ready{read_end, POLLIN, 0};
  while (poll(&ready, 1, 50) > 0 && (ready.revents & POLLIN)) {
    ssize_t n = read(read_end, piece, sizeof piece);
    if (n <= 0) break;
    text.append(piece, static_cast<size_t>(n));
  }
  close(write_end);
  close(read_end);
  return text;
}

void work() {
  Progress bar("working", 100);
  for (int i = 0; i < 10000; ++i) bar.advance(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  bar.advance(50);
}

bool pseudo_terminals() {
  int fd = posix_openpt(O_RDWR | O_NOCTTY);
  if (fd < 0) return false;
  bool ok = grantpt(fd) == 0 && unlockpt(fd) == 0 && ptsname(fd) != nullptr;
  close(fd);
  return ok;
}

TEST(Progress, IsSilentUnlessOnATerminal) { EXPECT_EQ(standard_error(false, work), ""); }

TEST(Progress, IsDrawnAndWipedOnATerminal) {
  if (!pseudo_terminals()) GTEST_SKIP() << "no pseudo-terminals here";
  setenv("NO_COLOR", "1", 1);
  std::string text = standard_error(true, work);
  unsetenv("NO_COLOR");
  EXPECT_NE(text.find("50/100  50%"), std::string::npos) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "NO_COLOR: no escapes";
  EXPECT_EQ(text.find('\n'), std::string::npos);
  // 10,000 calls, yet only a few drawings: 10 a second.
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 40);
  // The last thing written is a line of blanks over the bar, and the cursor back at its start.
  ASSERT_FALSE(text.empty());
  EXPECT_EQ(text.back(), '\r');
  size_t wipe = text.rfind('\r', text.size() - 2);
  ASSERT_NE(wipe, std::string::npos);
  EXPECT_EQ(text.substr(wipe + 1).find_first_not_of(" \r"), std::string::npos);
}

TEST(Progress, IsColouredOnlyWhereColourIsWanted) {
  if (!pseudo_terminals()) GTEST_SKIP() << "no pseudo-terminals here";
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  EXPECT_NE(standard_error(true, work).find("\x1b[32m"), std::string::npos);
  setenv("NO_COLOR", "", 1);  // the convention: empty counts as unset
  EXPECT_NE(standard_error(true, work).find("\x1b[32m"), std::string::npos);
  setenv("TERM", "dumb", 1);
  EXPECT_EQ(standard_error(true, work).find('\x1b'), std::string::npos);
  unsetenv("NO_COLOR");
}

TEST(Progress, ManyThreadsMayAdvanceIt) {
  auto many = [] {
    Progress bar("working", 4000);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) bar.advance();
      });
    for (auto& t : threads) t.join();
    bar.finish();
    bar.advance();  // after the end: nothing
  };
  if (pseudo_terminals())
    standard_error(true, many);
  else
    many();
}

}  // namespace
}  // namespace octet
