#pragma once
// Commands and their options, and errors of usage. CLI11 parses; arguments.cpp alone includes it.

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace octet::cli {

// What is wrong with a command line is said before any work starts, and the program exits with 2.
class WrongUsage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
[[noreturn]] void wrong_usage(const std::string& message);

// What is wrong with the text of an argument; "" if nothing is.
using Check = std::function<std::string(const std::string& text)>;
// A text that `lookup` accepts without throwing an Error.
Check accepted_by(std::function<void(const std::string&)> lookup);
Check whole_number(int64_t from, int64_t to);
Check positive_number();
Check non_negative_number();
Check number_in(double from, double to);
Check one_of(std::vector<std::string> names);

// An option of a command, or an argument without a name. A handle: the command keeps the option.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option& type_name(const std::string& name);  // what --help calls the value
  Option& required();
  Option& check(const Check& check);
  Option& one_value();            // each --name is followed by one value, never by several
  Option& delimiter(char comma);  // a value is a list: 1,2,3

 private:
  CLI::Option* option_;
};

// A command: `octet NAME ...`. A handle: the CommandLine keeps the command.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  // `names` is "-o,--output", or "MODEL" for an argument that is known by its place. Parsing writes
  // to `value`, which must live as long.
  Option add_option(const std::string& names, std::string& value, const std::string& help);
  Option add_option(const std::string& names, int& value, const std::string& help);
  Option add_option(const std::string& names, int64_t& value, const std::string& help);
  Option add_option(const std::string& names, float& value, const std::string& help);
  Option add_option(const std::string& names, double& value, const std::string& help);
  Option add_option(const std::string& names, std::vector<float>& value, const std::string& help);
  Option add_option(const std::string& names, std::vector<std::string>& value,
                    const std::string& help);
  void add_flag(const std::string& names, bool& value, const std::string& help);
  void footer(const std::string& text);  // the end of --help
  // What the command does. Started on several ranks, a command of one is wrong usage.
  enum class Ranks { one, several };
  void callback(const std::function<void()>& action, Ranks ranks = Ranks::one);

 private:
  CLI::App* app_;
};

// What --help says, for pages and shells.
struct OptionDescription {
  std::vector<std::string> names;  // "-o", "--output"; or "MODEL" for an argument without a name
  std::string value;               // what the value is called; "" for a flag
  std::string help;
  bool required = false;
  bool positional() const { return names.at(0)[0] != '-'; }
};
struct CommandDescription {
  std::string name, summary, footer;
  std::vector<OptionDescription> options;  // in order
};

// The program: `octet COMMAND ...`.
class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& summary, const std::string& version);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Command add_command(const std::string& name, const std::string& summary);
  void footer(const std::string& text);
  // Reads the arguments and runs the command; or prints the help or version that was asked for.
  // Throws WrongUsage, and whatever the command throws.
  void run(int argc, char** argv);
  // The program itself, then its commands.
  std::vector<CommandDescription> describe() const;

 private:
  void check_command(int argc, char** argv) const;
  std::string help_hint() const;
  std::unique_ptr<CLI::App> app_;
};

// A command of the program, which stands in its own file and nowhere else:
//   const RegisteredCommand g_convert("convert", add_convert);
class RegisteredCommand {
 public:
  using Add = void (*)(CommandLine& program);
  RegisteredCommand(const char* name, Add add);
  // Adds all of them, by name.
  static void add_all(CommandLine& program);
};

}  // namespace octet::cli
