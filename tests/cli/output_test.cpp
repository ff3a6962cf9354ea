// Where results go: what is never overwritten, and what happens where nothing can be written.
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

RunResult convert(const std::string& in, const std::string& out,
                  std::vector<std::string> more = {}) {
  std::vector<std::string> args{"convert", in, out};
  args.insert(args.end(), more.begin(), more.end());
  return run_octet(args);
}

// octet as a shell starts it: "inspect net.onnx 2>&-".
RunResult shell(const std::string& command) {
  return run_process({"/bin/sh", "-c", "exec " + octet_binary() + " " + command},
                     {.env = {{"OCTET_NUM_THREADS", "1"}}});
}

// -- files that are there already -----------------------------------------------------------------

TEST(CliOutput, AnInputIsNotOverwrittenByWhateverName) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::filesystem::copy_file(kNet, dir / "net.onnx");
  std::filesystem::create_symlink("net.onnx", dir / "link.onnx");
  std::filesystem::create_hard_link(dir / "net.onnx", dir / "hard.onnx");
  const std::string net = dir / "net.onnx", before = slurp(net);
  expect_failure(convert(net, net), 1, {"net.onnx", "is also the input", "--force"});
  for (const char* name : {"link.onnx", "hard.onnx"})
    expect_failure(convert(net, dir / name), 1, {name, "same file as the input", "net.onnx"});
  expect_failure(convert(dir / "link.onnx", net), 1, {"same file as the input", "link.onnx"});
  for (std::vector<std::string> args :
       {std::vector<std::string>{"quantize", net, "--calibrate", kCalibration, "-o", net},
        {"qat", net, "--data", kTest, "-o", net},
        {"train", net, "--data", kTest, "-o", net}})
    expect_failure(run_octet(args), 1, {"net.onnx", "is also the input", "--force"});
  EXPECT_TRUE(slurp(net) == before);
  write_npy(dir / "x.npy", Tensor::rand({1, 1, 28, 28}, 1, 0, 255));
  const std::string x = dir / "x.npy";
  expect_failure(run_octet({"run", net, "--input", "images=" + x, "--output", x}), 1,
                 {"x.npy", "is also the input"});
  expect_failure(run_octet({"run", net, "--input", "images=" + x, "--output", net}), 1,
                 {"net.onnx", "is also the input"});
  EXPECT_TRUE(slurp(net) == before);

  expect_success(convert(net, net, {"--force"}));
  expect_success(run_octet({"inspect", net}));
}

TEST(CliOutput, FilesOfAnotherKindAreNotOverwritten) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  ASSERT_EQ(convert(kNet, dir / "real.octet").code, 0);
  const std::string octet = slurp(dir / "real.octet"), onnx = slurp(kNet),
                    npz = slurp(kCalibration);
  struct Case {
    std::string name, contents;
  };
  const std::vector<Case> models{{"a.octet", "notes of a year\n"},
                                 {"b.octet", npz},
                                 {"c.octet", onnx},
                                 {"d.onnx", octet},
                                 {"e.onnx", npz},
                                 {"f.onnx", "x"},
                                 {"g.octet", std::string(64, '\0')},
                                 // A safetensors file of someone else's.
                                 {"h.octet", std::string("\x02\0\0\0\0\0\0\0{}", 10)}};
  for (const Case& c : models) {
    spill(dir / c.name, c.contents);
    expect_failure(convert(kNet, dir / c.name), 1, {c.name, "exists and is no", "--force"});
    // Known before anything is read.
    expect_failure(run_octet({"quantize", kNet, "--calibrate", "no/such.npz", "-o", dir / c.name}),
                   1, {c.name, "exists and is no"});
    EXPECT_TRUE(slurp(dir / c.name) == c.contents) << c.name;
    expect_success(convert(kNet, dir / c.name, {"--force"}));
    expect_success(run_octet({"inspect", dir / c.name}));
  }
  write_npy(dir / "x.npy", Tensor::rand({1, 1, 28, 28}, 1, 0, 255));
  const std::string x = "images=" + (dir / "x.npy").string();
  for (const Case& c : {Case{"y.npz", onnx},
                        {"notes.txt", "notes"},
                        {"weights.octet", octet},
                        {"report.docx", "PK\3\4" + std::string(60, 'x')}}) {
    spill(dir / c.name, c.contents);
    expect_failure(run_octet({"run", kNet, "--input", x, "--output", dir / c.name}), 1,
                   {c.name, "is no .npz"});
    EXPECT_TRUE(slurp(dir / c.name) == c.contents) << c.name;
  }
}

TEST(CliOutput, ResultsOfTheSameKindAndEmptyFilesAreReplaced) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const char* name : {"q.octet", "q.onnx"}) {
    spill(dir / name, "");
    for (int i = 0; i < 2; ++i) expect_success(convert(kNet, dir / name));
  }
  write_npy(dir / "x.npy", Tensor::rand({1, 1, 28, 28}, 1, 0, 255));
  for (int i = 0; i < 2; ++i)
    expect_success(run_octet(
        {"run", kNet, "--input", "images=" + (dir / "x.npy").string(), "--output", dir / "y.npz"}));
}

TEST(CliOutput, DevicesAndPipesNeedForce) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  ASSERT_EQ(mkfifo((dir / "pipe.octet").c_str(), 0600), 0);
  std::filesystem::create_symlink("/dev/null", dir / "null.octet");
  for (const char* name : {"pipe.octet", "null.octet"})
    expect_failure(convert(kNet, dir / name), 1, {name, "a device or a pipe", "--force"});
}

TEST(CliOutput, ReadOnlyTargetsAreFoundBeforeCalibration) {
  OCTET_NEED_PROGRAM();
  // A directory that refuses even root.
  expect_failure(run_octet({"quantize", kNet, "--calibrate", "no/such.npz", "-o",
                            "/proc/self/fdinfo/q.octet"}),
                 1, {"/proc/self/fdinfo/q.octet", "cannot write"});
  expect_failure(
      run_octet({"train", kNet, "--data", "no/such.npz", "-o", "/proc/self/fdinfo/q.octet"}), 1,
      {"cannot write"});
  expect_failure(
      run_octet({"qat", kNet, "--data", "no/such.npz", "-o", "/proc/self/fdinfo/q.octet"}), 1,
      {"cannot write"});
  if (geteuid() == 0) return;  // permissions do not bind root
  TempDir dir;
  ASSERT_EQ(convert(kNet, dir / "q.octet").code, 0);
  std::filesystem::permissions(dir / "q.octet", std::filesystem::perms::owner_read);
  expect_failure(convert(kNet, dir / "q.octet"), 1, {"q.octet", "write-protected", "--force"});
}

TEST(CliOutput, TheNextSaveRemovesWhatAKilledRunLeft) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / ".octet-123-0.tmp", "half a network");
  expect_success(convert(kNet, dir / "net.octet"));
  EXPECT_EQ(count_files(dir.path()), 1u);
}

// -- standard streams -----------------------------------------------------------------------------

TEST(CliStreams, WithoutStderrTheWorkIsDone) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "q.octet", trained = dir / "t.octet";
  for (const std::string stderr_is : {"2>&-", "2>/dev/full", "2>&- <&-"}) {
    RunResult r = shell("quantize " + kNet + " --calibrate " + kCalibration +
                        " --samples 64 --json -o " + out + " " + stderr_is);
    EXPECT_EQ(r.code, 0) << stderr_is;
    EXPECT_TRUE(nlohmann::json::parse(r.out, nullptr, false).is_object()) << stderr_is;
    expect_success(run_octet({"inspect", out}));
    // Training says how far it is after every epoch.
    r = shell("train " + kNet + " --data " + kTest + " --samples 128 --epochs 2 -o " + trained +
              " " + stderr_is);
    EXPECT_EQ(r.code, 0) << stderr_is;
    expect_success(run_octet({"inspect", trained}));
    EXPECT_EQ(shell("eval no/such.onnx --data x.npz " + stderr_is).code, 1);
    EXPECT_EQ(shell("frobnicate " + stderr_is).code, 2);
  }
}

TEST(CliStreams, ResultsThatCannotBeWrittenAreAnError) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_npy(dir / "x.npy", Tensor::rand({1, 1, 28, 28}, 1, 0, 255));
  const std::string quantize = "quantize " + kNet + " --calibrate " + kCalibration +
                               " --samples 64 -o " + (dir / "q.octet").string();
  const std::vector<std::string> commands{"--help",
                                          "--version",
                                          "quantize --help",
                                          "inspect " + kNet,
                                          "inspect --json " + kNet,
                                          quantize,
                                          quantize + " --json",
                                          "eval " + kNet + " --data " + kTest + " --samples 8",
                                          "bench " + kNet + " --seconds 0.01",
                                          "convert " + kNet + " " + (dir / "c.octet").string(),
                                          "run " + kNet +
                                              " --input images=" + (dir / "x.npy").string() +
                                              " --output " + (dir / "y.npz").string()};
  for (const std::string& command : commands)
    for (const std::string stdout_is : {">&-", ">/dev/full", "<&- >&-"}) {
      SCOPED_TRACE(command + " " + stdout_is);
      expect_failure(shell(command + " " + stdout_is), 1, {"cannot write to standard output"});
      EXPECT_EQ(shell(command + " " + stdout_is + " 2>&-").code, 1);
    }
}

TEST(CliStreams, AReaderThatLeavesIsAnErrorToo) {
  OCTET_NEED_PROGRAM();
  // The reader is gone before anything is written; more than a pipe holds.
  for (const std::string command : {"inspect --full ", "inspect --json "}) {
    RunResult r = run_process(
        {"/bin/bash", "-c",
         "{ sleep 0.2; " + octet_binary() + " " + command + kNet + "; echo code $? >&2; } | true"},
        {});
    EXPECT_TRUE(contains(r.err, "octet: error: cannot write to standard output: Broken pipe"))
        << r.err;
    EXPECT_TRUE(contains(r.err, "code 1")) << r.err;
  }
}

// A file that is opened must not become standard output or error.
TEST(CliStreams, NothingIsWrittenIntoFilesThatAreOpenedMeanwhile) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "net.octet";
  ASSERT_EQ(convert(kNet, out).code, 0);
  const std::string expected = slurp(out), data = slurp(kCalibration), net = slurp(kNet);
  for (const std::string closed : {"2>&-", "<&- 2>&-", "<&- >&- 2>&-"}) {
    std::filesystem::remove(out);
    shell("convert " + kNet + " " + out + " " + closed);
    EXPECT_TRUE(slurp(out) == expected) << closed;
    shell("quantize " + kNet + " --calibrate " + kCalibration + " --samples 64 -o " +
          (dir / "q.octet").string() + " " + closed);
    expect_success(run_octet({"inspect", dir / "q.octet"}));
  }
  EXPECT_TRUE(slurp(kCalibration) == data && slurp(kNet) == net);
}

TEST(CliStreams, AFileThatMayNotGrowIsAnErrorAndTheTargetStays) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "net.octet";
  ASSERT_EQ(convert(kNet, out).code, 0);
  const std::string before = slurp(out);
  RunResult r = run_process(
      {"/bin/sh", "-c", "ulimit -f 8; exec " + octet_binary() + " convert " + kNet + " " + out},
      {});
  expect_failure(r, 1, {"net.octet: cannot write", "File too large"});
  EXPECT_TRUE(slurp(out) == before);
  EXPECT_EQ(count_files(dir.path()), 1u);
}

// -- threads --------------------------------------------------------------------------------------

TEST(CliThreads, MoreThreadsThanCpusAreSaid) {
  OCTET_NEED_PROGRAM();
  RunResult r = run_octet({"bench", kNet, "--seconds", "0.01", "--threads", "1024"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "1024 threads (")) << r.out;
  EXPECT_TRUE(contains(r.out, " at once)")) << r.out;
}

}  // namespace
}  // namespace octet::testing
