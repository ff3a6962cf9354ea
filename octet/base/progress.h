#pragma once
// A progress bar on the terminal.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace octet {

// Whether what is written to this descriptor (1: standard output, 2: standard error) may be
// coloured: it is a terminal, NO_COLOR is unset or "", and TERM says a terminal that is not "dumb".
bool colour_wanted(int descriptor);

// Whether progress is shown: where standard error is a terminal. The variable OCTET_PROGRESS
// decides where it is set: 0 is never, all else always, as where a launcher hands on to its
// terminal what this process writes.
bool progress_wanted();

// Shows how far long work is on standard error, if progress_wanted(); otherwise nothing is written.
// It is redrawn at most ten
// times a second and wiped when the work ends, so that nothing of it stays among the messages.
// NO_COLOR (any value but "") takes its colour away, and so does TERM=dumb. Calls may come from
// several threads.
//
//   Progress bar("calibrating", dataset.size());
//   for (const Tensor& batch : data) bar.advance(batch.size(0));
//   bar.finish();  // or its destructor
//
//  calibrating  [##########..........]  1024/2000  51%  312/s  0:03 left
class Progress {
 public:
  // total: units of work in all; 0 if it is not known (then there is a count and a rate, but no bar
  // and no time left).
  Progress(std::string what, int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // n more units are done.
  void advance(int64_t n = 1);
  // Wipes the bar, so that a message can be written; the next advance draws it again.
  void hide();
  // Wipes it for good.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;  // null where nothing is shown
};

// The bar's text after `done` of `total` units in `seconds`, at most `width` columns wide, without
// colour.
std::string progress_line(const std::string& what, int64_t done, int64_t total, double seconds,
                          int width);

}  // namespace octet
