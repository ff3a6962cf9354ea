#include "cli/arguments.h"

#include "cli/team.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>

#include "octet/base/error.h"
#include "octet/base/plugin.h"
#include "octet/base/text.h"

namespace octet::cli {
namespace {

// A check of CLI11's, which may change the text that it is given.
Check check_of(CLI::Validator validator) {
  return [validator = std::move(validator)](std::string text) { return validator(text); };
}

}  // namespace

void wrong_usage(const std::string& message) { throw WrongUsage(message); }

// -- checks ---------------------------------------------------------------------------------------

Check accepted_by(std::function<void(const std::string&)> lookup) {
  return [lookup = std::move(lookup)](const std::string& text) -> std::string {
    try {
      lookup(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
}

Check whole_number(int64_t from, int64_t to) {
  return accepted_by([from, to](const std::string& text) {
    int64_t n = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || n < from || n > to)
      fail(ErrorCode::invalid_argument,
           to == INT64_MAX
               ? fmt::format("expected a whole number of {} or more, got '{}'", from, text)
               : fmt::format("expected a whole number from {} to {}, got '{}'", from, to, text));
  });
}

Check positive_number() { return check_of(CLI::PositiveNumber); }
Check non_negative_number() { return check_of(CLI::NonNegativeNumber); }
Check number_in(double from, double to) { return check_of(CLI::Range(from, to)); }
Check one_of(std::vector<std::string> names) { return check_of(CLI::IsMember(std::move(names))); }

// -- options --------------------------------------------------------------------------------------

Option& Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::check(const Check& check) {
  option_->check(CLI::Validator([check](std::string& text) { return check(text); }, ""));
  return *this;
}

Option& Option::one_value() {
  option_->allow_extra_args(false);
  return *this;
}

Option& Option::delimiter(char comma) {
  option_->delimiter(comma);
  return *this;
}

// -- commands -------------------------------------------------------------------------------------

Option Command::add_option(const std::string& names, std::string& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, int& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, int64_t& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, float& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, double& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, std::vector<float>& value,
                           const std::string& help) {
  return Option(app_->add_option(names, value, help));
}
Option Command::add_option(const std::string& names, std::vector<std::string>& value,
                           const std::string& help) {
  return Option(app_->add_option(names, value, help));
}

void Command::add_flag(const std::string& names, bool& value, const std::string& help) {
  app_->add_flag(names, value, help);
}

void Command::footer(const std::string& text) { app_->footer(text); }

void Command::callback(const std::function<void()>& action, Ranks ranks) {
  app_->callback([app = app_, action, ranks] {
    if (ranks == Ranks::one && team().size() > 1)
      wrong_usage(
          fmt::format("octet {} runs on one rank: start it without mpirun", app->get_name()));
    action();
  });
}

// -- the program ----------------------------------------------------------------------------------

CommandLine::CommandLine(const std::string& name, const std::string& summary,
                         const std::string& version)
    : app_(std::make_unique<CLI::App>(summary, name)) {
  app_->require_subcommand(1);
  app_->set_version_flag("--version", version, "print the version and exit");
  app_->set_help_flag("-h,--help", "print this help and exit");
  // Before the command is read: its options may name what a plug-in registers.
  app_->add_option_function<std::vector<std::string>>(
          "--plugin",
          [](const std::vector<std::string>& paths) {
            for (const std::string& path : paths) load_plugin(path);
          },
          "load operators, engines and tensor types from a shared library")
      ->type_name("FILE.so")
      ->allow_extra_args(false)
      ->trigger_on_parse();
}

CommandLine::~CommandLine() = default;

Command CommandLine::add_command(const std::string& name, const std::string& summary) {
  return Command(app_->add_subcommand(name, summary));
}

void CommandLine::footer(const std::string& text) { app_->footer(text); }

void CommandLine::run(int argc, char** argv) {
  try {
    check_command(argc, argv);
    app_->parse(argc, argv);  // runs the command's callback
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) throw WrongUsage(fmt::format("{}; {}", e.what(), help_hint()));
    app_->exit(e);  // --help, --version
  } catch (const WrongUsage& e) {
    throw WrongUsage(fmt::format("{}; {}", e.what(), help_hint()));
  }
}

namespace {

CommandDescription described(const CLI::App& app) {
  CommandDescription d{app.get_name(), app.get_description(), app.get_footer(), {}};
  for (const CLI::Option* o : app.get_options()) {
    OptionDescription option{{}, "", o->get_description(), o->get_required()};
    if (o->nonpositional()) {
      for (const std::string& name : o->get_snames()) option.names.push_back("-" + name);
      for (const std::string& name : o->get_lnames()) option.names.push_back("--" + name);
      option.value = o->get_items_expected_max() == 0 ? "" : o->get_type_name();
    } else {
      option.names.push_back(o->get_name(true));
    }
    if (o->get_items_expected_max() > 1) option.value += " ...";
    d.options.push_back(std::move(option));
  }
  return d;
}

}  // namespace

std::vector<CommandDescription> CommandLine::describe() const {
  std::vector<CommandDescription> all{described(*app_)};
  for (const CLI::App* command : app_->get_subcommands(nullptr)) all.push_back(described(*command));
  return all;
}

std::string CommandLine::help_hint() const {
  auto chosen = app_->get_subcommands();
  return fmt::format("see `{} {}--help`", app_->get_name(),
                     chosen.empty() ? "" : chosen[0]->get_name() + " ");
}

// CLI11 would say that a subcommand is required where there is one that it does not know.
void CommandLine::check_command(int argc, char** argv) const {
  if (argc < 2) wrong_usage("no command given");
  std::vector<std::string> known;
  for (const CLI::App* command : app_->get_subcommands(nullptr))
    known.push_back(command->get_name());
  std::string name = argv[1];
  if (name.starts_with('-') || std::find(known.begin(), known.end(), name) != known.end()) return;
  wrong_usage(fmt::format("unknown command '{}'{} (known: {})", name, did_you_mean(name, known),
                          fmt::join(known, ", ")));
}

// -- the commands ---------------------------------------------------------------------------------

namespace {
std::map<std::string, RegisteredCommand::Add>& commands() {
  static std::map<std::string, RegisteredCommand::Add> all;
  return all;
}
}  // namespace

RegisteredCommand::RegisteredCommand(const char* name, Add add) { commands().emplace(name, add); }

void RegisteredCommand::add_all(CommandLine& program) {
  for (const auto& [name, add] : commands()) add(program);
}

}  // namespace octet::cli
