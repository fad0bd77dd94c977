// Where a file lies on the device that its file system is on. Asks the kernel, so it may wait for that
// device.
#pragma once

#include <string>
#include <vector>

#include "tools/slowdisk/orders.h"

namespace nvr::slowdisk {

// The device's bytes that hold `wanted` of the file (all of it when empty), in the file's order, whole
// blocks. What was written is flushed first, since until then it lies nowhere.
[[nodiscard]] Result<std::vector<Range>> extents_of(const std::string& path,
                                                    const std::vector<Range>& wanted);

// An order about a file, as one about the ranges of the image that hold it. `mounted_at`: where the file
// system of the image is. Orders about no file are returned as they are; "truncate file" cannot be expressed.
[[nodiscard]] Result<Order> in_image(const Order& order, const std::string& mounted_at);

}  // namespace nvr::slowdisk
