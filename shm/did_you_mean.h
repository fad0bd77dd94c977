// Says of a mistyped name which one may have been meant. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nvr::shm {

// How many letters must be inserted, dropped, replaced, or swapped with their neighbour.
[[nodiscard]] inline std::size_t letters_between(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, now);
  }
  return last[b.size()];
}

// " (did you mean 'NAME'?)" with the nearest of `names`, or nothing where none is near.
[[nodiscard]] inline std::string did_you_mean(std::string_view given, std::span<const std::string> names) {
  const auto distance = [&](const std::string& name) { return letters_between(given, name); };
  const auto nearest = std::ranges::min_element(names, {}, distance);
  if (nearest == names.end() || distance(*nearest) > std::max<std::size_t>(1, given.size() / 3)) return "";
  return " (did you mean '" + *nearest + "'?)";
}

// Of a command line that does not parse: a sentence for each argument that `app`, or the subcommand that was
// given, does not know.
[[nodiscard]] inline std::vector<std::string> unexpected_arguments(const CLI::App& app) {
  std::vector<std::string> options, commands, sentences;
  const auto know = [&](const CLI::App& known) {
    for (const CLI::Option* const option : known.get_options())
      for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
    for (const CLI::App* const command : known.get_subcommands([](const CLI::App*) { return true; }))
      commands.push_back(command->get_name());
  };
  know(app);
  for (const CLI::App* const command : app.get_subcommands()) know(*command);
  const auto arguments = app.remaining(true);
  for (const std::string& argument : arguments) {
    if (!argument.starts_with('-')) continue;  // it may be the value of an option that is not known
    const std::string name = argument.substr(0, argument.find('='));
    sentences.push_back("unknown option '" + name + "'" + did_you_mean(name, options));
  }
  if (!sentences.empty() || arguments.empty()) return sentences;
  return {"unexpected argument '" + arguments.front() + "'" + did_you_mean(arguments.front(), commands)};
}

}  // namespace nvr::shm
