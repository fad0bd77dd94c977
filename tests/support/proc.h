// What the laboratory reads in /proc, by the names that tests use.
#pragma once

#include "tests/support/environment.h"
#include "tools/lab/proc.h"
