// The laboratory's waiting, by the names that tests use.
#pragma once

#include "tests/support/environment.h"
#include "tools/lab/wait.h"
