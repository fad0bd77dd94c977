// Whole files of text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "nvr/error.h"

namespace nvr::bench {

// Empty where it cannot be read.
[[nodiscard]] std::string text_of(const std::filesystem::path& path);
[[nodiscard]] Result<void> write_text(std::string_view text, const std::filesystem::path& path);

}  // namespace nvr::bench
