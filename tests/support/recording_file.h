// The laboratory's recordings, by the names that tests use.
#pragma once

#include "tests/support/environment.h"
#include "tools/lab/recording_file.h"
