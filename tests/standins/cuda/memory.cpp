// Device memory, page-locked ("pinned") host memory, copies and fills. All of it is host memory.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "driver.h"

using namespace standin;

namespace {

// New memory is filled with this byte: as float32 it reads 3.4e38, so that a read before the copy shows.
constexpr int FRESH_BYTE = 0x7f;

bool onDevice(DevicePointer start, size_t bytes) { return covers(driver().deviceMemory, start, bytes); }

bool pageLocked(const void* start, size_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(start);
    return covers(driver().pinnedMemory, address, bytes) || covers(driver().registeredMemory, address, bytes);
}

void* address(DevicePointer pointer) { return reinterpret_cast<void*>(pointer); }

// A fill of `count` elements of one, two or four bytes.
template <class Element>
Result fill(DevicePointer start, Element value, size_t count, Stream& stream) {
    if (!onDevice(start, count * sizeof(Element))) return INVALID_VALUE;
    submit(stream, [=] {
        auto* elements = static_cast<Element*>(address(start));
        for (size_t index = 0; index < count; ++index) elements[index] = value;
    });
    return SUCCESS;
}

template <class Element>
Result fillNow(DevicePointer start, Element value, size_t count) {
    finishForDefaultStream();
    const Result result = fill(start, value, count, driver().defaultStream);
    finish(driver().defaultStream);
    return result;
}

}  // namespace

// ---- device memory

EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, Device device);

EXPORT Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    REQUIRE_READY();
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - driver().deviceBytes;
    return SUCCESS;
}

EXPORT Result cuMemAlloc_v2(DevicePointer* pointer, size_t bytes) {
    REQUIRE_READY();
    if (bytes == 0) return INVALID_VALUE;
    size_t free = 0, total = 0;
    cuMemGetInfo_v2(&free, &total);
    if (bytes > free) return OUT_OF_MEMORY;
    void* memory = std::malloc(bytes);
    if (!memory) return OUT_OF_MEMORY;
    std::memset(memory, FRESH_BYTE, bytes);
    *pointer = reinterpret_cast<DevicePointer>(memory);
    driver().deviceMemory[*pointer] = bytes;
    driver().deviceBytes += bytes;
    if (driver().deviceBytes > driver().peakDeviceBytes) driver().peakDeviceBytes = driver().deviceBytes;
    return SUCCESS;
}

EXPORT Result cuMemFree_v2(DevicePointer pointer) {
    REQUIRE_READY();
    const auto found = driver().deviceMemory.find(pointer);
    if (found == driver().deviceMemory.end()) return INVALID_VALUE;
    finishAll();
    driver().deviceBytes -= found->second;
    driver().deviceMemory.erase(found);
    std::free(address(pointer));
    return SUCCESS;
}

EXPORT Result cuMemAllocAsync(DevicePointer* pointer, size_t bytes, void* stream) {
    return findStream(stream) ? cuMemAlloc_v2(pointer, bytes) : INVALID_HANDLE;
}

EXPORT Result cuMemFreeAsync(DevicePointer pointer, void* stream) {
    return findStream(stream) ? cuMemFree_v2(pointer) : INVALID_HANDLE;
}

EXPORT Result cuMemGetAddressRange_v2(DevicePointer* start, size_t* bytes, DevicePointer pointer) {
    REQUIRE_READY();
    auto after = driver().deviceMemory.upper_bound(pointer);
    if (after == driver().deviceMemory.begin() || !onDevice(pointer, 1)) return NOT_FOUND;
    --after;
    if (start) *start = after->first;
    if (bytes) *bytes = after->second;
    return SUCCESS;
}

// ---- pinned memory

EXPORT Result cuMemHostAlloc(void** pointer, size_t bytes, uint32_t) {
    REQUIRE_READY();
    *pointer = std::malloc(bytes ? bytes : 1);
    if (!*pointer) return OUT_OF_MEMORY;
    driver().pinnedMemory[reinterpret_cast<uintptr_t>(*pointer)] = bytes;
    driver().pinnedBytes += bytes;
    return SUCCESS;
}

EXPORT Result cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

EXPORT Result cuMemFreeHost(void* pointer) {
    REQUIRE_READY();
    const auto found = driver().pinnedMemory.find(reinterpret_cast<uintptr_t>(pointer));
    if (found == driver().pinnedMemory.end()) return INVALID_VALUE;
    finishAll();
    driver().pinnedBytes -= found->second;
    driver().pinnedMemory.erase(found);
    std::free(pointer);
    return SUCCESS;
}

EXPORT Result cuMemHostGetFlags(uint32_t* flags, void* pointer) {
    REQUIRE_READY();
    *flags = 0;
    return pageLocked(pointer, 1) ? SUCCESS : INVALID_VALUE;
}

EXPORT Result cuMemHostGetDevicePointer_v2(DevicePointer* device, void* host, uint32_t) {
    REQUIRE_READY();
    if (!pageLocked(host, 1)) return INVALID_VALUE;
    *device = reinterpret_cast<DevicePointer>(host);
    return SUCCESS;
}

EXPORT Result cuMemHostRegister_v2(void* pointer, size_t bytes, uint32_t) {
    REQUIRE_READY();
    driver().registeredMemory[reinterpret_cast<uintptr_t>(pointer)] = bytes;
    return SUCCESS;
}

EXPORT Result cuMemHostUnregister(void* pointer) {
    REQUIRE_READY();
    finishAll();
    return driver().registeredMemory.erase(reinterpret_cast<uintptr_t>(pointer)) ? SUCCESS : INVALID_VALUE;
}

// ---- copies

EXPORT Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, size_t bytes, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!onDevice(to, bytes)) return INVALID_VALUE;
    ++driver().copiesToDevice;
    if (pageLocked(from, bytes)) {  // read when the copy runs: reusing the buffer too early shows
        submit(*stream, [=] { std::memcpy(address(to), from, bytes); });
    } else {  // ordinary memory is staged by the driver before the call returns
        const auto* first = static_cast<const char*>(from);
        submit(*stream, [to, staged = std::vector<char>(first, first + bytes)] {
            std::memcpy(address(to), staged.data(), staged.size());
        });
    }
    return SUCCESS;
}

EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, size_t bytes, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!onDevice(from, bytes)) return INVALID_VALUE;
    ++driver().copiesToHost;
    submit(*stream, [=] { std::memcpy(to, address(from), bytes); });
    return SUCCESS;
}

EXPORT Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    if (!stream) return INVALID_HANDLE;
    if (!onDevice(to, bytes) || !onDevice(from, bytes)) return INVALID_VALUE;
    ++driver().copiesOnDevice;
    submit(*stream, [=] { std::memmove(address(to), address(from), bytes); });
    return SUCCESS;
}

EXPORT Result cuMemcpyHtoD_v2(DevicePointer to, const void* from, size_t bytes) {
    REQUIRE_READY();
    finishForDefaultStream();
    const Result result = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
    finish(driver().defaultStream);
    return result;
}

EXPORT Result cuMemcpyDtoH_v2(void* to, DevicePointer from, size_t bytes) {
    REQUIRE_READY();
    finishForDefaultStream();
    const Result result = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    finish(driver().defaultStream);
    return result;
}

EXPORT Result cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
    REQUIRE_READY();
    finishForDefaultStream();
    const Result result = cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
    finish(driver().defaultStream);
    return result;
}

// With unified addressing the direction follows from the pointers.
EXPORT Result cuMemcpyAsync(DevicePointer to, DevicePointer from, size_t bytes, void* handle) {
    REQUIRE_READY();
    if (onDevice(to, bytes) && onDevice(from, bytes)) return cuMemcpyDtoDAsync_v2(to, from, bytes, handle);
    if (onDevice(to, bytes)) return cuMemcpyHtoDAsync_v2(to, address(from), bytes, handle);
    return cuMemcpyDtoHAsync_v2(address(to), from, bytes, handle);
}

EXPORT Result cuMemcpy(DevicePointer to, DevicePointer from, size_t bytes) {
    REQUIRE_READY();
    finishForDefaultStream();
    const Result result = cuMemcpyAsync(to, from, bytes, nullptr);
    finish(driver().defaultStream);
    return result;
}

// ---- fills

EXPORT Result cuMemsetD8_v2(DevicePointer start, uint8_t value, size_t count) {
    REQUIRE_READY();
    return fillNow(start, value, count);
}

EXPORT Result cuMemsetD16_v2(DevicePointer start, uint16_t value, size_t count) {
    REQUIRE_READY();
    return fillNow(start, value, count);
}

EXPORT Result cuMemsetD32_v2(DevicePointer start, uint32_t value, size_t count) {
    REQUIRE_READY();
    return fillNow(start, value, count);
}

EXPORT Result cuMemsetD8Async(DevicePointer start, uint8_t value, size_t count, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    return stream ? fill(start, value, count, *stream) : INVALID_HANDLE;
}

EXPORT Result cuMemsetD16Async(DevicePointer start, uint16_t value, size_t count, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    return stream ? fill(start, value, count, *stream) : INVALID_HANDLE;
}

EXPORT Result cuMemsetD32Async(DevicePointer start, uint32_t value, size_t count, void* handle) {
    REQUIRE_READY();
    Stream* stream = findStream(handle);
    return stream ? fill(start, value, count, *stream) : INVALID_HANDLE;
}
