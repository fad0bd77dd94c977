/* Refuses memory on order, to the whole process: the allocation that is the nth from now on, and if asked to
 * all that follow it. Linked into a test. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

/* glibc's own, under the names that nobody replaces. */
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

static atomic_llong left; /* until the one that is refused; 0 or less: it has been */
static atomic_bool is_armed;
static atomic_bool goes_on;
static atomic_ullong refused;

void nvr_test_refuse_allocation(long long nth, int and_all_after_it) {
  atomic_store(&left, nth);
  atomic_store(&goes_on, and_all_after_it != 0);
  atomic_store(&refused, 0);
  atomic_store(&is_armed, 1);
}

/* How many were refused. */
unsigned long long nvr_test_allow_allocations(void) {
  atomic_store(&is_armed, 0);
  return atomic_load(&refused);
}

static int is_refused(void) {
  if (!atomic_load_explicit(&is_armed, memory_order_relaxed)) return 0;
  const long long before = atomic_fetch_sub(&left, 1);
  if (before > 1 || (before < 1 && !atomic_load(&goes_on))) return 0;
  atomic_fetch_add(&refused, 1);
  errno = ENOMEM;
  return 1;
}

void* malloc(size_t size) {
  return is_refused() ? NULL : __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
  return is_refused() ? NULL : __libc_calloc(number, size);
}

void* realloc(void* memory, size_t size) {
  return is_refused() ? NULL : __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) {
  return is_refused() ? NULL : __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory != NULL ? 0 : ENOMEM;
}
