/* For LD_PRELOAD: what Linux 6.1 answers otherwise than by failing, which a seccomp filter can do. Landlock
 * is of ABI 2 and takes no larger a ruleset, and statx() does not say how direct reads are to be aligned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/landlock.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

enum { kAbi = 2, kRulesetBytes = 8 };

typedef long (*system_call)(long, ...);
typedef int (*statx_call)(int, const char*, int, unsigned, struct statx*);

long syscall(long number, ...) {
  static system_call real;
  if (real == NULL) real = (system_call)dlsym(RTLD_NEXT, "syscall");
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; ++i) a[i] = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_landlock_create_ruleset) {
    if ((uint32_t)a[2] == LANDLOCK_CREATE_RULESET_VERSION) return kAbi;
    if ((size_t)a[1] > kRulesetBytes) {
      errno = E2BIG;
      return -1;
    }
  }
  return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int statx(int directory, const char* path, int flags, unsigned mask, struct statx* st) {
  static statx_call real;
  if (real == NULL) real = (statx_call)dlsym(RTLD_NEXT, "statx");
  const int result = real(directory, path, flags, mask & ~STATX_DIOALIGN, st);
  if (result == 0) st->stx_mask &= ~STATX_DIOALIGN;
  return result;
}
