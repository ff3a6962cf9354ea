#include "octet/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <mutex>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

std::string duration(double seconds) {
  auto s = static_cast<int64_t>(std::min(std::ceil(seconds), 359999.0));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string rate(double per_second) {
  if (per_second >= 10) return fmt::format("{:.0f}/s", per_second);
  if (per_second >= 0.1) return fmt::format("{:.1f}/s", per_second);
  return fmt::format("{:.1f}/min", per_second * 60);
}

int terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

bool progress_wanted() {
  const char* wish = std::getenv("OCTET_PROGRESS");
  return wish && *wish ? std::string(wish) != "0" : ::isatty(STDERR_FILENO) != 0;
}

bool colour_wanted(int descriptor) {
  const char *off = std::getenv("NO_COLOR"), *term = std::getenv("TERM");
  return ::isatty(descriptor) && !(off && *off) && term && *term && std::string(term) != "dumb";
}

std::string progress_line(const std::string& what, int64_t done, int64_t total, double seconds,
                          int width) {
  std::string tail;
  if (total > 0) {
    double part = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
    tail = fmt::format("{}/{}  {:.0f}%", done, total, std::floor(part * 100));
  } else {
    tail = fmt::format("{}", done);
  }
  if (done > 0 && seconds > 0) {
    double speed = static_cast<double>(done) / seconds;
    tail += "  " + rate(speed);
    if (total > done)
      tail += fmt::format("  {} left", duration(static_cast<double>(total - done) / speed));
  }
  std::string bar;
  int room = width - static_cast<int>(what.size() + tail.size()) - 6;  // the brackets and the gaps
  if (total > 0 && room >= 8) {
    int cells = std::min(room, 30);
    int full = static_cast<int>(
        std::clamp<double>(static_cast<double>(done) / static_cast<double>(total), 0, 1) * cells);
    bar = fmt::format("[{}{}]  ", std::string(full, '#'), std::string(cells - full, '.'));
  }
  std::string line = what + "  " + bar + tail;
  if (static_cast<int>(line.size()) > width) line.resize(static_cast<size_t>(std::max(width, 0)));
  return line;
}

struct Progress::State {
  std::mutex mutex;
  std::string what;
  int64_t total = 0, done = 0;
  Clock::time_point start = Clock::now(), drawn{};
  size_t shown = 0;  // columns of the terminal's line in use
  bool colour = false;

  // One write, so that lines of other threads do not fall into it. What fails here is of no
  // consequence.
  static void put(const std::string& text) {
    (void)!::write(STDERR_FILENO, text.data(), text.size());
  }

  void draw() {
    auto now = Clock::now();
    if (now - drawn < std::chrono::milliseconds(100)) return;
    drawn = now;
    double seconds = std::chrono::duration<double>(now - start).count();
    // The last column stays free: writing there would make some terminals wrap.
    std::string line = progress_line(what, done, total, seconds, terminal_width() - 1);
    size_t columns = line.size();
    std::string padding(shown > columns ? shown - columns : 0, ' ');
    size_t open = line.find('[', what.size()), close = line.find(']', what.size());
    if (colour && open != std::string::npos && close != std::string::npos)
      line = line.substr(0, open) + "\x1b[32m" + line.substr(open, close + 1 - open) + "\x1b[0m" +
             line.substr(close + 1);
    put("\r" + line + padding);
    shown = std::max(shown, columns);
  }

  void wipe() {
    if (shown) put("\r" + std::string(shown, ' ') + "\r");
    shown = 0;
    drawn = {};
  }
};

Progress::Progress(std::string what, int64_t total) {
  if (!progress_wanted()) return;
  state_ = std::make_unique<State>();
  state_->what = std::move(what);
  state_->total = total;
  state_->colour = colour_wanted(STDERR_FILENO);
  state_->draw();
}

Progress::~Progress() { finish(); }

void Progress::advance(int64_t n) {
  if (!state_) return;
  std::lock_guard lock(state_->mutex);
  state_->done += n;
  state_->draw();
}

void Progress::hide() {
  if (!state_) return;
  std::lock_guard lock(state_->mutex);
  state_->wipe();
}

void Progress::finish() {
  hide();
  state_.reset();
}

}  // namespace octet
