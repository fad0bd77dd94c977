// What the shared library shows of itself: the public headers' functions, and nothing of what is behind them.
#pragma once

#if defined(__GNUC__)
#define NVR_PUBLIC __attribute__((visibility("default")))
#else
#define NVR_PUBLIC
#endif
