// Our own declarations for a host-memory stand-in of the CUDA driver library (libcuda.so.1).
// Nothing here comes from cuda.h: only the calling convention is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace standin {

enum Result : int32_t {  // the driver's own numbers
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
};

constexpr int32_t DRIVER_VERSION = 12090;
constexpr size_t DEFAULT_DEVICE_BYTES = size_t{8} << 30;

using DevicePointer = uint64_t;
using Device = int32_t;  // the one device is number 0

struct Context {};

// A piece of work that a stream has accepted and not yet done.
using Work = std::function<void()>;

struct Stream {
    bool joinsDefaultStream = true;  // false for streams created "non-blocking"
    std::deque<Work> pending;
};

struct Event {
    Stream* stream = nullptr;                         // where it was last recorded
    std::shared_ptr<bool> reached;                    // has that stream got to the record?
    std::shared_ptr<double> milliseconds;             // the clock when it got there
};

// Everything that the process-wide "device" owns. Guarded by `mutex`.
struct Driver {
    std::recursive_mutex mutex;
    bool initialized = false;
    int64_t primaryContextUsers = 0;
    Context primaryContext;
    Stream defaultStream;
    std::set<Stream*> streams;
    std::set<Event*> events;
    std::map<DevicePointer, size_t> deviceMemory;  // start -> bytes
    std::map<uintptr_t, size_t> pinnedMemory;      // start -> bytes, allocated by us
    std::map<uintptr_t, size_t> registeredMemory;  // start -> bytes, the caller's own, page-locked on request
    size_t deviceBytes = 0;
    size_t peakDeviceBytes = 0;
    size_t pinnedBytes = 0;
    uint64_t copiesToDevice = 0;
    uint64_t copiesToHost = 0;
    uint64_t copiesOnDevice = 0;
};

Driver& driver();  // never destroyed: Python may free memory while the process is ending

// Do `bytes` bytes from `start` lie inside one of the ranges?
template <class Key>
bool covers(const std::map<Key, size_t>& ranges, Key start, size_t bytes) {
    auto after = ranges.upper_bound(start);
    if (after == ranges.begin()) return false;
    const auto& [first, size] = *std::prev(after);
    return start - first <= size && bytes <= size - (start - first);
}

// The context on top of the calling thread's stack, or null.
Context* currentContext();

// SUCCESS when the library is initialized and the thread has a context, else what a real driver answers.
Result ready();

bool deferring();  // environment STANDIN_CUDA_DEFER=1

// Resolves a handle from the caller; null is the default stream, an unknown handle gives null.
Stream* findStream(void* handle);

// Does the work now, or puts it in the stream's queue while deferring.
void submit(Stream& stream, Work work);

void finish(Stream& stream);   // does all of a stream's pending work
void finishAll();              // every stream's
void finishForDefaultStream(); // the default stream and those that wait for it: what a synchronous copy does

}  // namespace standin

// First line of every entry point that needs a context.
#define REQUIRE_READY()                                                   \
    std::lock_guard<std::recursive_mutex> lock(standin::driver().mutex);  \
    if (standin::Result state = standin::ready(); state != standin::SUCCESS) return state
