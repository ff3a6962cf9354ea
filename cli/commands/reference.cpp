// octet reference FORMAT: what --help says of every command, for the documentation and for shells
#include <fmt/format.h>

#include <memory>

#include "cli/common.h"
#include "octet/base/version.h"

namespace octet::cli {
namespace {

using Commands = std::vector<CommandDescription>;

std::string join_names(const OptionDescription& o, const std::string& between) {
  return fmt::format("{}", fmt::join(o.names, between));
}

// Lines become parts of one.
std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n')
      line += "; ";
    else if (c != ' ' || (!line.empty() && line.back() != ' '))
      line += c;
  }
  return line;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

// -- docs/cli.md ----------------------------------------------------------------------------------

std::string markdown(const Commands& all) {
  const auto cell = [](const std::string& text) { return replaced(one_line(text), "|", "\\|"); };
  std::string page =
      "# Command line\nWhat `octet COMMAND --help` says. This page is generated: `octet reference "
      "markdown`.\n\n";
  for (const OptionDescription& o : all[0].options)
    page += fmt::format("`octet {}{}`: {}  \n", join_names(o, ", "),
                        o.value.empty() ? "" : " " + o.value, one_line(o.help));
  page += fmt::format("\n{}\n", all[0].footer);
  for (size_t i = 1; i < all.size(); ++i) {
    const CommandDescription& c = all[i];
    page += fmt::format("\n## octet {}\n{}{}.\n\n| option | |\n|---|---|\n", c.name,
                        static_cast<char>(std::toupper(static_cast<unsigned char>(c.summary[0]))),
                        c.summary.substr(1));
    for (const OptionDescription& o : c.options)
      page += fmt::format("| `{}{}`{} | {} |\n", join_names(o, "`, `"),
                          o.value.empty() || o.positional() ? "" : " " + o.value,
                          o.required ? " (required)" : "", cell(o.help));
    if (!c.footer.empty()) page += fmt::format("\n```text\n{}\n```\n", c.footer);
  }
  return page;
}

// -- octet.1 --------------------------------------------------------------------------------------

std::string man_text(const std::string& text) {
  std::string escaped = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
  if (escaped.starts_with('.') || escaped.starts_with('\'')) escaped.insert(0, "\\&");
  return replaced(escaped, "\n.", "\n\\&.");
}

std::string manual(const Commands& all) {
  std::string page = fmt::format(
      ".TH OCTET 1 \"\" \"octet {}\" \"User Commands\"\n.SH NAME\noctet \\- quantize neural "
      "networks "
      "and run them in 8 bits\n.SH SYNOPSIS\n.B octet\n.I COMMAND\n[\\fIoptions\\fR]\n.SH "
      "DESCRIPTION\n{}\n",
      octet::version(), man_text(all[0].footer));
  const auto options = [&](const CommandDescription& c) {
    for (const OptionDescription& o : c.options)
      page += fmt::format(
          ".TP\n\\fB{}\\fR{}\n{}\n", man_text(join_names(o, ", ")),
          o.value.empty() || o.positional() ? "" : fmt::format(" \\fI{}\\fR", man_text(o.value)),
          man_text(one_line(o.help)));
  };
  page += ".SH OPTIONS\n";
  options(all[0]);
  page += ".SH COMMANDS\n";
  for (size_t i = 1; i < all.size(); ++i) {
    page += fmt::format(".SS octet {}\n{}\n", all[i].name, man_text(all[i].summary));
    options(all[i]);
    if (!all[i].footer.empty()) page += fmt::format(".PP\n.nf\n{}\n.fi\n", man_text(all[i].footer));
  }
  return page + ".SH EXIT STATUS\n0 done, 1 the work failed, 2 wrong usage.\n";
}

// -- completions ----------------------------------------------------------------------------------

std::string option_words(const CommandDescription& c) {
  std::string words;
  for (const OptionDescription& o : c.options)
    if (!o.positional()) words += (words.empty() ? "" : " ") + o.names.back();
  return words;
}

std::string bash(const Commands& all) {
  std::string names, cases;
  for (size_t i = 1; i < all.size(); ++i) {
    names += (names.empty() ? "" : " ") + all[i].name;
    cases += fmt::format("    {}) words=\"{}\" ;;\n", all[i].name, option_words(all[i]));
  }
  return fmt::format(
      "# bash completion of octet, by `octet reference bash`\n_octet() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} words\n"
      "  case ${{COMP_WORDS[1]}} in\n{}    *) words=\"{} {}\" ;;\n  esac\n"
      "  if [[ $word == -* || $COMP_CWORD -eq 1 ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n  else\n"
      "    mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n  fi\n}}\n"
      "complete -o filenames -F _octet octet\n",
      cases, names, option_words(all[0]));
}

std::string quoted(const std::string& text) { return replaced(one_line(text), "'", "'\\''"); }

std::string zsh(const Commands& all) {
  std::string names, cases;
  for (size_t i = 1; i < all.size(); ++i) {
    names += fmt::format("    '{}:{}'\n", all[i].name, quoted(all[i].summary));
    cases += fmt::format("    {})\n      _arguments", all[i].name);
    for (const OptionDescription& o : all[i].options)
      if (!o.positional())
        cases += fmt::format(" \\\n        '{}[{}]{}'", o.names.back(),
                             replaced(replaced(quoted(o.help), "[", "\\["), "]", "\\]"),
                             o.value.empty() ? "" : ":value:_files");
    cases += " \\\n        '*:file:_files'\n      ;;\n";
  }
  return fmt::format(
      "#compdef octet\n# zsh completion of octet, by `octet reference zsh`\n_octet() {{\n"
      "  local -a commands=(\n{}  )\n  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n    return\n  fi\n  case $words[2] in\n{}  esac\n}}\n"
      "_octet \"$@\"\n",
      names, cases);
}

std::string fish(const Commands& all) {
  std::string lines = "# fish completion of octet, by `octet reference fish`\n";
  for (size_t i = 1; i < all.size(); ++i) {
    lines += fmt::format("complete -c octet -n __fish_use_subcommand -f -a {} -d '{}'\n",
                         all[i].name, quoted(all[i].summary));
    for (const OptionDescription& o : all[i].options)
      if (!o.positional() && o.names.back().starts_with("--"))
        lines += fmt::format(
            "complete -c octet -n '__fish_seen_subcommand_from {}' -l {}{} -d '{}'\n", all[i].name,
            o.names.back().substr(2), o.value.empty() ? "" : " -r", quoted(o.help));
  }
  return lines;
}

void add_reference(CommandLine& program) {
  auto format = std::make_shared<std::string>();
  Command command =
      program.add_command("reference", "all of --help as a page, or for a shell's completion");
  command.add_option("FORMAT", *format, "markdown, man, bash, zsh or fish")
      .type_name("")
      .check(one_of({"markdown", "man", "bash", "zsh", "fish"}))
      .required();
  command.footer(
      "Installed with octet are its manual page (`man octet`) and completions.\n"
      "Example: source <(octet reference bash)");
  command.callback([format, &program] {
    const Commands all = program.describe();
    fmt::print("{}", *format == "markdown" ? markdown(all)
                     : *format == "man"    ? manual(all)
                     : *format == "bash"   ? bash(all)
                     : *format == "zsh"    ? zsh(all)
                                           : fish(all));
  });
}

const RegisteredCommand g_reference("reference", add_reference);

}  // namespace
}  // namespace octet::cli
