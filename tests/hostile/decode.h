// Decodes any bytes as everything that a peer sends or writes, and checks that what is believed can be
// believed.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace nvr::test {

// What was believed and should not have been; empty if nothing.
[[nodiscard]] std::string problem_decoding(std::span<const std::byte> bytes);

}  // namespace nvr::test
