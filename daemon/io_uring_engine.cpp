#include "daemon/io_uring_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "daemon/ring_restrictions.h"
#include "shm/clock.h"

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer does not see the ring open and close files. When the number of a descriptor goes from the
// disk thread to the control thread or back that way, it takes the next close() for one of a file still in
// use.
extern "C" const char* __tsan_default_suppressions() {
  return "race_top:^__interceptor_close$\n";
}
#endif

namespace nvr::daemon {
namespace {

// user_data is the address of an Operation, or of one of these.
char doorbells_tag;
char closed_tag;
char advised_tag;
char proof_tag;

// Kernel threads that wait for the disk: for opens and for reads of files whose extents are not in memory
// yet, one each. Opens count as bounded work. Reads with IOSQE_ASYNC count as unbounded although their files
// are regular, for the kernel looks at the file only when it reads (seen with 6.18). Each kind may need one
// for every operation, or what is stuck keeps others from the disk.
constexpr std::array<unsigned, 2> kMaxWorkers = {kMaxOperations, kMaxOperations};
// Times that the kernel may say it has no room for a submission before we believe that it never will.
constexpr int kMaxSubmitTries = 10'000;

// From the one that costs least to the one that any kernel with io_uring has.
constexpr std::array<unsigned, 4> kSetupLadder = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN, IORING_SETUP_COOP_TASKRUN, 0};

std::string remedy_for(int error) {
  switch (error) {
    case ENOSYS:
      return "the kernel or a seccomp filter knows no io_uring: allow it, or use --engine mmap";
    case EPERM: {
      std::ifstream sysctl("/proc/sys/kernel/io_uring_disabled");
      if (int disabled = 0; sysctl >> disabled && disabled != 0)
        return "sysctl kernel.io_uring_disabled is " + std::to_string(disabled) +
               ": set it to 0, or use --engine mmap";
      return "a seccomp filter or security module forbids it: allow io_uring_setup, or use --engine mmap";
    }
    case ENOMEM:
      return "memory that may be locked is used up: raise LimitMEMLOCK (ulimit -l), or use --engine mmap";
    case EMFILE:
    case ENFILE:
      return "descriptors are used up: raise LimitNOFILE (ulimit -n), or use --engine mmap";
    default:
      return "use --engine mmap";
  }
}

Result<void> refuse(int error, const char* what) {
  auto refused = fail_errno(error, std::string("io_uring does not work here: ") + what);
  refused.value().message += "; " + remedy_for(error);
  return refused;
}

}  // namespace

// ---- Set-up
// --------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<IoUringEngine>> IoUringEngine::create(const SampleDir& directory, int wakeups,
                                                             std::uint32_t depth, bool restrict_ring,
                                                             std::uint64_t request_bytes) {
  std::unique_ptr<IoUringEngine> engine(new IoUringEngine(directory, wakeups, depth, request_bytes));
  if (auto set_up = engine->set_up(restrict_ring); !set_up) return tl::unexpected(set_up.error());
  if (auto proven = engine->prove(); !proven) return tl::unexpected(proven.error());
  engine->watch_doorbells();
  return engine;
}

IoUringEngine::IoUringEngine(const SampleDir& directory, int wakeups, std::uint32_t depth,
                             std::uint64_t request_bytes)
    : directory_(&directory),
      wakeups_(wakeups),
      depth_(depth),
      request_bytes_(request_bytes),
      how_(SampleDir::how_to_open()),
      requests_(kMaxOperations),
      nowhere_(shm::kSlotBytes) {}

IoUringEngine::~IoUringEngine() {
  if (is_set_up_) io_uring_queue_exit(&ring_);
}

int IoUringEngine::create_ring(unsigned more_flags) {
  int result = -EINVAL;
  for (const unsigned flags : kSetupLadder) {
    io_uring_params params = {};
    params.flags = flags | more_flags | IORING_SETUP_CQSIZE;
    params.cq_entries = 4 * kMaxOperations;  // every operation, its close, and the doorbells
    result = io_uring_queue_init_params(2 * kMaxOperations, &ring_, &params);
    if (result != -EINVAL) break;
  }
  return result;
}

std::string IoUringEngine::confinement() const {
  return is_restricted_ ? "io_uring restrictions" : "no io_uring restrictions";
}

Result<void> IoUringEngine::set_up(bool restrict_ring) {
  // To be restricted a ring starts disabled, which kernels before 5.10 do not know.
  int result = create_ring(restrict_ring ? IORING_SETUP_R_DISABLED : 0);
  if (result == -EINVAL && restrict_ring) result = create_ring(0);
  if (result < 0) return refuse(-result, "io_uring_setup");
  is_set_up_ = true;
  io_uring_ring_dontfork(&ring_);
  std::array<unsigned, 2> workers = kMaxWorkers;
  io_uring_register_iowq_max_workers(&ring_, workers.data());  // where the kernel has it (5.15)

  io_uring_probe* const probe = io_uring_get_probe_ring(&ring_);
  if (probe == nullptr) {  // which does not say why
    io_uring_probe nothing = {};
    const int error = -io_uring_register_probe(&ring_, &nothing, 0);
    return refuse(error > 0 ? error : EOPNOTSUPP, "io_uring_register");
  }
  bool complete = true;
  for (const int opcode : {IORING_OP_READ, IORING_OP_READV, IORING_OP_OPENAT2, IORING_OP_CLOSE,
                           IORING_OP_POLL_ADD, IORING_OP_FADVISE})
    complete &= io_uring_opcode_supported(probe, opcode) != 0;
  io_uring_free_probe(probe);
  if (!complete) return refuse(EOPNOTSUPP, "the kernel lacks an operation");
  if ((ring_.flags & IORING_SETUP_R_DISABLED) != 0) {
    const int enabled = restrict_and_enable(ring_);
    if (enabled < 0) return refuse(-enabled, "io_uring_register");
    is_restricted_ = enabled == 1;
  }
  return {};
}

// Opens the directory itself through the ring and reads from it, which a file system answers with EISDIR: the
// whole way is open, without a file that would have to be there.
Result<void> IoUringEngine::prove() {
  const auto run = [this](auto&& prepare) -> std::int64_t {
    prepare(next_sqe());
    io_uring_cqe* cqe = nullptr;
    __kernel_timespec limit = {.tv_sec = 10, .tv_nsec = 0};
    const int waited = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &limit, nullptr);
    if (waited < 0) return waited;
    const std::int64_t result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return result;
  };
  const std::int64_t fd = run([&](io_uring_sqe& sqe) {
    io_uring_prep_openat2(&sqe, directory_->fd(), ".", &how_);
    io_uring_sqe_set_data(&sqe, &proof_tag);
  });
  if (fd < 0) return refuse(static_cast<int>(-fd), "opening the directory through it");
  const shm::UniqueFd opened(static_cast<int>(fd));
  std::byte byte{};
  const std::int64_t read = run([&](io_uring_sqe& sqe) {
    io_uring_prep_read(&sqe, opened.get(), &byte, 1, 0);
    io_uring_sqe_set_data(&sqe, &proof_tag);
  });
  if (read != -EISDIR) return refuse(read < 0 ? static_cast<int>(-read) : EPROTO, "reading through it");
  return {};
}

// ---- Submission
// ------------------------------------------------------------------------------------------------------

// The queue holds twice what can be in flight, so it is full of closes at most, and submitting empties it.
io_uring_sqe& IoUringEngine::next_sqe() {
  for (int tries = 0; tries < kMaxSubmitTries && !failure_; ++tries) {
    if (io_uring_sqe* const sqe = io_uring_get_sqe(&ring_)) return *sqe;
    judge(io_uring_submit(&ring_));
  }
  if (!failure_) judge(-EBUSY, true);
  return discarded_;
}

// What io_uring_enter has answered: is it over with this ring?
void IoUringEngine::judge(int result, bool for_good) {
  if (result >= 0 || failure_) return;
  const bool passes = result == -EINTR || result == -EAGAIN || result == -EBUSY || result == -ETIME;
  if (passes && !for_good) return;
  failure_ = fail_errno(-result, "io_uring has failed").value();
}

void IoUringEngine::submit(Operation& operation) {
  if (operation.kind == Operation::Kind::kOpen)
    submit_open(operation);
  else if (operation.kind == Operation::Kind::kPrefetch)
    submit_prefetch(operation);
  else if (operation.only_memory || cache_.is_hot(*operation.file))
    in_memory_.push_back(&operation);
  else
    submit_read(operation);
}

void IoUringEngine::submit_open(Operation& operation) {
  Request& request = requests_[operation.index];
  request.name = {};
  file_name_of(operation.recording).copy(request.name.data(), request.name.size() - 1);
  request.how = how_;
  if (operation.cache == CachePolicy::kDirect) request.how.flags |= O_DIRECT;
  io_uring_sqe& sqe = next_sqe();
  io_uring_prep_openat2(&sqe, directory_->fd(), request.name.data(), &request.how);
  io_uring_sqe_set_data(&sqe, &operation);
  ++outstanding_;
}

void IoUringEngine::submit_read(Operation& operation) {
  if (operation.file->dio_align > 0)
    submit_direct(operation);
  else
    submit_buffered(operation);
}

void IoUringEngine::submit_buffered(Operation& operation) {
  Request& request = requests_[operation.index];
  const std::uint32_t count = operation.parts_left(request.parts);
  const SampleFile& file = *operation.file;
  const std::uint64_t offset = operation.position();
  io_uring_sqe& sqe = next_sqe();
  if (count == 1)
    io_uring_prep_read(&sqe, file.fd.get(), request.parts[0].iov_base,
                       static_cast<unsigned>(request.parts[0].iov_len), offset);
  else
    io_uring_prep_readv(&sqe, file.fd.get(), request.parts.data(), count, offset);
  if (file.cache == CachePolicy::kDrop) {
    drop_behind_.before(operation);
    sqe.rw_flags = drop_behind_.flags();
  }
  send_read(operation, sqe, !is_cached(operation));
}

// A read to nowhere, which leaves the pages where they are wanted: it goes with the others without a worker,
// and tells of an error like any read.
void IoUringEngine::submit_prefetch(Operation& operation) {
  Request& request = requests_[operation.index];
  SampleFile& file = *operation.file;
  // With the kernel's own readahead two of them at a time would be read in turns, a piece of this and a piece
  // of that.
  read_as_told(file);
  if (!file.has_places) advise(operation);
  std::uint32_t count = 0;
  for (std::size_t left = operation.length - operation.done; left > 0; ++count) {
    request.parts[count] = {.iov_base = nowhere_.data(), .iov_len = std::min(left, nowhere_.size())};
    left -= request.parts[count].iov_len;
  }
  io_uring_sqe& sqe = next_sqe();
  io_uring_prep_readv(&sqe, file.fd.get(), request.parts.data(), count, operation.position());
  send_read(operation, sqe, !is_cached(operation));
}

// On a file system without a disk of its own (FUSE, NFS) a read of a segment sends its requests one after the
// other, each as long as the kernel reads ahead at most, and requests of others come in between. So all of
// the segment's requests are sent at once, before the read.
void IoUringEngine::advise(const Operation& operation) {
  const std::uint64_t end = operation.offset + operation.length;
  for (std::uint64_t at = operation.position(); at < end; at += request_bytes_) {
    io_uring_sqe& sqe = next_sqe();
    io_uring_prep_fadvise(&sqe, operation.file->fd.get(), at,
                          static_cast<off_t>(std::min(request_bytes_, end - at)), POSIX_FADV_WILLNEED);
    io_uring_sqe_set_data(&sqe, &advised_tag);
    ++outstanding_;
  }
}

// Is all that is left of it in memory? Asked only of files whose extents may not be.
bool IoUringEngine::is_cached(const Operation& operation) {
  const SampleFile& file = *operation.file;
  return !file.extents_known && presence_of(file.fd.get(), operation.position(),
                                            operation.length - operation.done) == Presence::kAll;
}

// The aligned part of what is left goes into the slots, without the kernel having to look up their pages
// where the window is registered; a part that is not aligned goes through the bounce buffer.
void IoUringEngine::submit_direct(Operation& operation) {
  Request& request = requests_[operation.index];
  SampleFile& file = *operation.file;
  request.direct = plan_direct_read(operation);
  const DirectRead& read = request.direct;
  io_uring_sqe& sqe = next_sqe();
  if (read.bounces) {
    io_uring_prep_read(&sqe, file.fd.get(), request.bounce.get(kReadSlots * shm::kSlotBytes), read.length,
                       read.offset);
    return send_read(operation, sqe, true);
  }
  if (!std::exchange(file.is_registered, true)) file.buffer = windows_.add(ring_, file.window);
  std::uint32_t count = operation.parts_left(request.parts);
  std::uint32_t unaligned = operation.left() - read.length;
  for (; unaligned >= request.parts[count - 1].iov_len; --count)
    unaligned -= static_cast<std::uint32_t>(request.parts[count - 1].iov_len);
  request.parts[count - 1].iov_len -= unaligned;
  if (count > 1)
    io_uring_prep_readv(&sqe, file.fd.get(), request.parts.data(), count, read.offset);
  else if (file.buffer >= 0)
    io_uring_prep_read_fixed(&sqe, file.fd.get(), request.parts[0].iov_base, read.length, read.offset,
                             file.buffer);
  else
    io_uring_prep_read(&sqe, file.fd.get(), request.parts[0].iov_base, read.length, read.offset);
  send_read(operation, sqe, true);
}

// Reading a file whose extents are not in memory would block in the submission, unkillably.
void IoUringEngine::send_read(Operation& operation, io_uring_sqe& sqe, bool may_wait_for_extents) {
  Request& request = requests_[operation.index];
  request.round = rounds_;
  request.reads_extents = may_wait_for_extents && !operation.file->extents_known;
  if (request.reads_extents) io_uring_sqe_set_flags(&sqe, IOSQE_ASYNC);
  io_uring_sqe_set_data(&sqe, &operation);
  ++outstanding_;
}

void IoUringEngine::close(std::unique_ptr<SampleFile> file) {
  windows_.remove(ring_, file->buffer);
  const int fd = file->fd.release();
  io_uring_sqe& sqe = next_sqe();
  io_uring_prep_close(&sqe, fd);
  io_uring_sqe_set_data(&sqe, &closed_tag);
  ++outstanding_;
}

void IoUringEngine::watch_doorbells() {
  io_uring_sqe& sqe = next_sqe();
  io_uring_prep_poll_multishot(&sqe, wakeups_, POLLIN);
  io_uring_sqe_set_data(&sqe, &doorbells_tag);
}

// ---- Completion
// ------------------------------------------------------------------------------------------------------

std::size_t IoUringEngine::reap(std::span<Completion> completions) {
  if (outstanding_ > 0 || io_uring_sq_ready(&ring_) > 0) judge(io_uring_submit_and_get_events(&ring_));
  ++rounds_;
  std::size_t count = 0;
  // One copy a call: its reader must not wait for the next one's. Reads that have to go to the ring are no
  // copy.
  while (count == 0 && !in_memory_.empty() && !completions.empty()) {
    Operation& operation = *in_memory_.front();
    in_memory_.pop_front();
    const std::int64_t result =
        operation.only_memory ? cache_.read(operation) : PageCache::read_hot(operation);
    if (result == -EAGAIN && !operation.only_memory)
      submit_read(operation);
    else
      completions[count++] = {.operation = &operation, .result = result};
  }
  io_uring_cqe* cqe = nullptr;
  while (count < completions.size() && io_uring_peek_cqe(&ring_, &cqe) == 0) {
    void* const data = io_uring_cqe_get_data(cqe);
    const std::int64_t result = cqe->res;
    const bool goes_on = (cqe->flags & IORING_CQE_F_MORE) != 0;
    io_uring_cqe_seen(&ring_, cqe);
    if (data == &doorbells_tag) {
      if (!goes_on) watch_doorbells();  // before anything else: a client can bring this about
      continue;
    }
    --outstanding_;
    if (data == &closed_tag || data == &advised_tag) continue;
    auto& operation = *static_cast<Operation*>(data);
    completions[count++] = {.operation = &operation, .result = finish(operation, result)};
  }
  return count;
}

std::int64_t IoUringEngine::finish(Operation& operation, std::int64_t result) {
  return operation.kind == Operation::Kind::kOpen ? finish_open(operation, result)
                                                  : finish_read(operation, result);
}

std::int64_t IoUringEngine::finish_open(Operation& operation, std::int64_t result) const {
  if (result < 0) return result;
  operation.opened = std::make_unique<SampleFile>();
  SampleFile& file = *operation.opened;
  file.fd.reset(static_cast<int>(result));
  file.cache = operation.cache;
  if (file.cache == CachePolicy::kDirect) {
    file.dio_align = direct_alignment_of(file.fd.get());
    if (file.dio_align == 0) return -EOPNOTSUPP;
  }
  // No readahead: of two reads that overtake each other the later one's would bring in again what the other
  // has dropped.
  if (file.cache == CachePolicy::kDrop) posix_fadvise(file.fd.get(), 0, 0, POSIX_FADV_RANDOM);
  return SampleDir::describe(file);
}

std::int64_t IoUringEngine::finish_read(Operation& operation, std::int64_t result) {
  SampleFile& file = *operation.file;
  Request& request = requests_[operation.index];
  if (file.cache == CachePolicy::kDrop) {
    if (result == -EOPNOTSUPP && drop_behind_.flags() != 0) {
      drop_behind_.set_unsupported();
      return -EAGAIN;  // again, the other way
    }
    drop_behind_.after(operation);
  }
  if (result > 0 && request.reads_extents) file.extents_known = true;
  // What is in memory is there as soon as it has been submitted.
  const bool was_away = rounds_ - request.round > 1 && !request.reads_extents;
  if (operation.kind == Operation::Kind::kRead) PageCache::learn(operation, was_away ? 0 : result);
  operation.asks_disk |= was_away || request.reads_extents || file.dio_align > 0;
  return file.dio_align > 0 && request.direct.bounces
             ? request.bounce.deliver(request.direct, result, operation)
             : result;
}

int IoUringEngine::wait(int timeout_ms) {
  const int rest_ms = cache_.rest();
  if (rest_ms >= 0) timeout_ms = timeout_ms < 0 ? rest_ms : std::min(timeout_ms, rest_ms);
  io_uring_cqe* cqe = nullptr;
  if (timeout_ms < 0) {
    judge(io_uring_submit_and_wait(&ring_, 1));
    return 0;
  }
  __kernel_timespec limit = {.tv_sec = timeout_ms / 1000, .tv_nsec = (timeout_ms % 1000) * 1'000'000L};
  judge(io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &limit, nullptr));
  return 0;
}

}  // namespace nvr::daemon
