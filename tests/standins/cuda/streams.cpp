// Streams and events. Work runs at once, or waits in its stream's queue while STANDIN_CUDA_DEFER is set:
// then it runs only when something synchronizes with the stream, as the worst-behaved GPU might do.
#include <chrono>

#include "driver.h"

namespace standin {

Stream* findStream(void* handle) {
    constexpr uintptr_t LEGACY_DEFAULT = 1, PER_THREAD_DEFAULT = 2;  // the driver's two reserved handles
    const auto value = reinterpret_cast<uintptr_t>(handle);
    if (value == 0 || value == LEGACY_DEFAULT || value == PER_THREAD_DEFAULT) return &driver().defaultStream;
    auto* stream = static_cast<Stream*>(handle);
    return driver().streams.count(stream) ? stream : nullptr;
}

void submit(Stream& stream, Work work) {
    if (deferring())
        stream.pending.push_back(std::move(work));
    else
        work();
}

void finish(Stream& stream) {
    while (!stream.pending.empty()) {
        Work work = std::move(stream.pending.front());
        stream.pending.pop_front();
        work();
    }
}

void finishForDefaultStream() {
    finish(driver().defaultStream);
    for (Stream* stream : driver().streams)
        if (stream->joinsDefaultStream) finish(*stream);
}

void finishAll() {
    finish(driver().defaultStream);
    for (Stream* stream : driver().streams) finish(*stream);
}

namespace {

double clockMilliseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(now).count();
}

bool known(Event* event) { return driver().events.count(event) != 0; }

bool stillPending(const Event& event) { return event.reached && !*event.reached; }

// Runs the stream that holds the record of the event as far as that record.
void runUpTo(Stream* stream, const std::shared_ptr<bool>& reached) {
    while (reached && !*reached && stream && !stream->pending.empty()) {
        Work work = std::move(stream->pending.front());
        stream->pending.pop_front();
        work();
    }
}

}  // namespace
}  // namespace standin

using namespace standin;

// ---- streams

EXPORT Result cuStreamCreate(void** stream, uint32_t flags) {
    REQUIRE_READY();
    constexpr uint32_t NON_BLOCKING = 1;
    auto* created = new Stream;
    created->joinsDefaultStream = !(flags & NON_BLOCKING);
    driver().streams.insert(created);
    *stream = created;
    return SUCCESS;
}

EXPORT Result cuStreamCreateWithPriority(void** stream, uint32_t flags, int32_t) {
    return cuStreamCreate(stream, flags);
}

EXPORT Result cuStreamDestroy_v2(void* handle) {
    REQUIRE_READY();
    auto* stream = static_cast<Stream*>(handle);
    if (!driver().streams.count(stream)) return INVALID_HANDLE;
    finish(*stream);  // accepted work is still done
    driver().streams.erase(stream);
    for (Event* event : driver().events)
        if (event->stream == stream) event->stream = nullptr;
    delete stream;
    return SUCCESS;
}

EXPORT Result cuStreamSynchronize(void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    finish(*stream);
    return SUCCESS;
}

EXPORT Result cuStreamQuery(void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    return stream->pending.empty() ? SUCCESS : NOT_READY;
}

EXPORT Result cuStreamWaitEvent(void* handle, Event* event, uint32_t) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream || !known(event)) return INVALID_HANDLE;
    submit(*stream, [source = event->stream, reached = event->reached] { runUpTo(source, reached); });
    return SUCCESS;
}

EXPORT Result cuStreamGetFlags(void* handle, uint32_t* flags) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    *flags = stream->joinsDefaultStream ? 0 : 1;
    return SUCCESS;
}

EXPORT Result cuStreamGetCtx(void* handle, Context** context) {
    REQUIRE_READY();
    if (!findStream(handle)) return INVALID_HANDLE;
    *context = currentContext();
    return SUCCESS;
}

// ---- events

EXPORT Result cuEventCreate(Event** event, uint32_t) {
    REQUIRE_READY();
    *event = new Event;
    driver().events.insert(*event);
    return SUCCESS;
}

EXPORT Result cuEventDestroy_v2(Event* event) {
    REQUIRE_READY();
    if (!driver().events.erase(event)) return INVALID_HANDLE;
    delete event;
    return SUCCESS;
}

EXPORT Result cuEventRecord(Event* event, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream || !known(event)) return INVALID_HANDLE;
    event->stream = stream;
    event->reached = std::make_shared<bool>(false);
    event->milliseconds = std::make_shared<double>(0.0);
    submit(*stream, [reached = event->reached, milliseconds = event->milliseconds] {
        *milliseconds = clockMilliseconds();
        *reached = true;
    });
    return SUCCESS;
}

EXPORT Result cuEventSynchronize(Event* event) {
    REQUIRE_READY();
    if (!known(event)) return INVALID_HANDLE;
    runUpTo(event->stream, event->reached);
    return SUCCESS;
}

EXPORT Result cuEventQuery(Event* event) {
    REQUIRE_READY();
    if (!known(event)) return INVALID_HANDLE;
    return stillPending(*event) ? NOT_READY : SUCCESS;
}

EXPORT Result cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    REQUIRE_READY();
    if (!known(start) || !known(end) || !start->reached || !end->reached) return INVALID_HANDLE;
    if (stillPending(*start) || stillPending(*end)) return NOT_READY;
    *milliseconds = static_cast<float>(*end->milliseconds - *start->milliseconds);
    return SUCCESS;
}
