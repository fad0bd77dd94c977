/* Counts what a program allocates from the heap. Linked into a test, for that process; and for LD_PRELOAD, in
 * the first eight bytes of the file that NVR_TEST_ALLOCATIONS names, so that a test can read the count of
 * another program while it runs. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own, under the names that nobody replaces. */
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

static atomic_ullong own_count;
static atomic_ullong* count = &own_count;

__attribute__((constructor)) static void share_count(void) {
  const char* const path = getenv("NVR_TEST_ALLOCATIONS");
  const int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void* const memory = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) count = memory;
}

unsigned long long nvr_test_allocations(void) {
  return atomic_load_explicit(count, memory_order_relaxed);
}

static void note(void) {
  atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
}

void* malloc(size_t size) {
  note();
  return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
  note();
  return __libc_calloc(number, size);
}

void* realloc(void* memory, size_t size) {
  note();
  return __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) {
  note();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory != NULL ? 0 : 12; /* ENOMEM */
}
