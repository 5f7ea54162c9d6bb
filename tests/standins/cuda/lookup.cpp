// How callers find and question the library: symbol lookup, error names, the unsupported rest, counters.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

using namespace standin;

namespace {

using AnyFunction = void (*)();

Result unsupported(const char* name) {
    if (std::getenv("STANDIN_CUDA_TRACE")) std::fprintf(stderr, "libcuda stand-in: %s is not supported\n", name);
    return NOT_SUPPORTED;
}

Result unsupportedByLookup() { return unsupported("a function found through cuGetProcAddress"); }

struct ErrorText {
    Result code;
    const char* name;
    const char* description;
};

const ErrorText ERROR_TEXTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

const ErrorText* findError(int32_t code) {
    for (const ErrorText& text : ERROR_TEXTS)
        if (text.code == code) return &text;
    return nullptr;
}

}  // namespace

EXPORT Result cuGetErrorName(int32_t code, const char** name) {
    const ErrorText* text = findError(code);
    *name = text ? text->name : nullptr;
    return text ? SUCCESS : INVALID_VALUE;
}

EXPORT Result cuGetErrorString(int32_t code, const char** description) {
    const ErrorText* text = findError(code);
    *description = text ? text->description : nullptr;
    return text ? SUCCESS : INVALID_VALUE;
}

// ---- functions that compiled packages (pycuda) link against and that this library does not have

#define UNSUPPORTED(name) \
    EXPORT Result name() { return unsupported(#name); }
#include "unsupported.def"
#undef UNSUPPORTED

// ---- lookup by name, as cuda-bindings does it

// Declared with no arguments on purpose: here only the addresses matter.
#define SUPPORTED(symbol, since, function) EXPORT Result function();
#include "supported.def"
#undef SUPPORTED

EXPORT Result cuGetProcAddress_v2(const char* symbol, void** address, int32_t version, uint64_t, int32_t* status) {
    struct EntryPoint {
        const char* symbol;
        int32_t since;  // the CUDA version that brought this form of the function
        AnyFunction function;
    };
    static const EntryPoint entryPoints[] = {
#define SUPPORTED(symbol, since, function) {#symbol, since, reinterpret_cast<AnyFunction>(function)},
#include "supported.def"
#undef SUPPORTED
        {"cuGetProcAddress", 12000, reinterpret_cast<AnyFunction>(cuGetProcAddress_v2)},
        {"cuGetErrorName", 6000, reinterpret_cast<AnyFunction>(cuGetErrorName)},
        {"cuGetErrorString", 6000, reinterpret_cast<AnyFunction>(cuGetErrorString)},
    };
    const EntryPoint* newest = nullptr;
    for (const EntryPoint& entry : entryPoints) {
        const bool fits = std::strcmp(entry.symbol, symbol) == 0 && entry.since <= version;
        if (fits && (!newest || entry.since > newest->since)) newest = &entry;
    }
    const AnyFunction found =
        newest && newest->function ? newest->function : reinterpret_cast<AnyFunction>(unsupportedByLookup);
    *address = reinterpret_cast<void*>(found);
    if (status) *status = 0;
    return SUCCESS;
}

// ---- counters, for tests; the order is that of standin_cuda.Counters

EXPORT void standin_cuda_counters(uint64_t* values) {
    const Driver& state = driver();
    values[0] = state.deviceMemory.size();
    values[1] = state.deviceBytes;
    values[2] = state.peakDeviceBytes;
    values[3] = state.pinnedMemory.size();
    values[4] = state.pinnedBytes;
    values[5] = state.copiesToDevice;
    values[6] = state.copiesToHost;
    values[7] = state.copiesOnDevice;
    values[8] = state.streams.size();
    values[9] = state.events.size();
    values[10] = static_cast<uint64_t>(state.primaryContextUsers);
}

// For the libnvinfer stand-in: may a kernel read these bytes?
EXPORT int32_t standin_cuda_readable(DevicePointer start, size_t bytes) {
    return covers(driver().deviceMemory, start, bytes);
}
