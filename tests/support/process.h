// The laboratory's child processes, by the names that tests use.
#pragma once

#include "tests/support/environment.h"
#include "tools/lab/process.h"
