// The laboratory's temporary directories, by the name that tests use.
#pragma once

#include "tests/support/environment.h"
#include "tools/lab/temp_dir.h"
