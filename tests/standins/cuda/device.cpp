// Initialization, the one device, and contexts.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "driver.h"

namespace standin {

namespace {
thread_local std::vector<Context*> contextStack;
const int32_t COMPUTE_CAPABILITY[2] = {8, 0};

// Attribute numbers of the driver API that Python packages ask for; the rest answer 0.
enum Attribute : int32_t {
    MAX_THREADS_PER_BLOCK = 1,
    WARP_SIZE = 10,
    CAN_MAP_HOST_MEMORY = 19,
    UNIFIED_ADDRESSING = 41,
    COMPUTE_CAPABILITY_MAJOR = 75,
    COMPUTE_CAPABILITY_MINOR = 76,
};

bool environmentSays(const char* name) {
    const char* value = std::getenv(name);
    return value && *value && std::strcmp(value, "0") != 0;
}

void copyText(char* destination, int32_t size, const char* text) {
    if (size > 0) std::snprintf(destination, static_cast<size_t>(size), "%s", text);
}
}  // namespace

Driver& driver() {
    static auto* const instance = new Driver;
    return *instance;
}

Context* currentContext() { return contextStack.empty() ? nullptr : contextStack.back(); }

Result ready() {
    if (!driver().initialized) return NOT_INITIALIZED;
    return currentContext() ? SUCCESS : INVALID_CONTEXT;
}

bool deferring() { return environmentSays("STANDIN_CUDA_DEFER"); }

}  // namespace standin

using namespace standin;

EXPORT Result cuInit(uint32_t) {
    if (environmentSays("STANDIN_CUDA_NO_DEVICE")) return NO_DEVICE;
    driver().initialized = true;
    return SUCCESS;
}

EXPORT Result cuDriverGetVersion(int32_t* version) {
    *version = DRIVER_VERSION;
    return SUCCESS;
}

// ---- the device

EXPORT Result cuDeviceGetCount(int32_t* count) {
    if (!driver().initialized) return NOT_INITIALIZED;
    *count = 1;
    return SUCCESS;
}

EXPORT Result cuDeviceGet(Device* device, int32_t ordinal) {
    if (!driver().initialized) return NOT_INITIALIZED;
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

EXPORT Result cuDeviceGetName(char* name, int32_t size, Device) {
    copyText(name, size, "host-memory stand-in (no GPU)");
    return SUCCESS;
}

EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, Device) {
    const char* limit = std::getenv("STANDIN_CUDA_LIMIT_BYTES");
    *bytes = limit ? std::strtoull(limit, nullptr, 10) : DEFAULT_DEVICE_BYTES;
    return SUCCESS;
}

EXPORT Result cuDeviceComputeCapability(int32_t* major, int32_t* minor, Device) {
    *major = COMPUTE_CAPABILITY[0];
    *minor = COMPUTE_CAPABILITY[1];
    return SUCCESS;
}

EXPORT Result cuDeviceGetAttribute(int32_t* value, int32_t attribute, Device) {
    switch (attribute) {
        case MAX_THREADS_PER_BLOCK: *value = 1024; break;
        case WARP_SIZE: *value = 32; break;
        case CAN_MAP_HOST_MEMORY:
        case UNIFIED_ADDRESSING: *value = 1; break;
        case COMPUTE_CAPABILITY_MAJOR: *value = COMPUTE_CAPABILITY[0]; break;
        case COMPUTE_CAPABILITY_MINOR: *value = COMPUTE_CAPABILITY[1]; break;
        default: *value = 0;
    }
    return SUCCESS;
}

EXPORT Result cuDeviceGetUuid(char* uuid, Device) {
    std::memset(uuid, 0, 16);
    return SUCCESS;
}

EXPORT Result cuDeviceGetPCIBusId(char* text, int32_t size, Device) {
    copyText(text, size, "0000:00:00.0");
    return SUCCESS;
}

// ---- contexts: a stack for each thread

EXPORT Result cuDevicePrimaryCtxRetain(Context** context, Device device) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    if (!driver().initialized) return NOT_INITIALIZED;
    if (device != 0) return INVALID_DEVICE;
    ++driver().primaryContextUsers;
    *context = &driver().primaryContext;
    return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(Device) {
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);
    if (driver().primaryContextUsers == 0) return INVALID_CONTEXT;
    --driver().primaryContextUsers;
    return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxSetFlags_v2(Device, uint32_t) { return SUCCESS; }

EXPORT Result cuDevicePrimaryCtxGetState(Device, uint32_t* flags, int32_t* active) {
    *flags = 0;
    *active = driver().primaryContextUsers > 0;
    return SUCCESS;
}

EXPORT Result cuCtxCreate_v2(Context** context, uint32_t, Device device) {
    if (!driver().initialized) return NOT_INITIALIZED;
    if (device != 0) return INVALID_DEVICE;
    *context = new Context;
    contextStack.push_back(*context);
    return SUCCESS;
}

// Since CUDA 12.5 the call also takes a block of creation parameters, which a stand-in has no use for.
EXPORT Result cuCtxCreate_v4(Context** context, void*, uint32_t flags, Device device) {
    return cuCtxCreate_v2(context, flags, device);
}

EXPORT Result cuCtxDestroy_v2(Context* context) {
    if (!context) return INVALID_VALUE;
    std::vector<Context*> kept;
    for (Context* entry : contextStack)
        if (entry != context) kept.push_back(entry);
    contextStack = kept;
    if (context != &driver().primaryContext) delete context;
    return SUCCESS;
}

EXPORT Result cuCtxAttach(Context** context, uint32_t) {
    *context = currentContext();
    return ready();
}

EXPORT Result cuCtxDetach(Context* context) { return cuCtxDestroy_v2(context); }

EXPORT Result cuCtxPushCurrent_v2(Context* context) {
    if (!context) return INVALID_CONTEXT;
    contextStack.push_back(context);
    return SUCCESS;
}

EXPORT Result cuCtxPopCurrent_v2(Context** context) {
    if (contextStack.empty()) return INVALID_CONTEXT;
    if (context) *context = contextStack.back();
    contextStack.pop_back();
    return SUCCESS;
}

EXPORT Result cuCtxGetCurrent(Context** context) {
    if (!driver().initialized) return NOT_INITIALIZED;
    *context = currentContext();
    return SUCCESS;
}

EXPORT Result cuCtxSetCurrent(Context* context) {
    if (!driver().initialized) return NOT_INITIALIZED;
    if (!contextStack.empty()) contextStack.pop_back();
    if (context) contextStack.push_back(context);
    return SUCCESS;
}

EXPORT Result cuCtxGetDevice(Device* device) {
    REQUIRE_READY();
    *device = 0;
    return SUCCESS;
}

EXPORT Result cuCtxGetApiVersion(Context*, uint32_t* version) {
    *version = DRIVER_VERSION;
    return SUCCESS;
}

EXPORT Result cuCtxGetStreamPriorityRange(int32_t* least, int32_t* greatest) {
    *least = 0;
    *greatest = 0;
    return SUCCESS;
}

EXPORT Result cuCtxSynchronize() {
    REQUIRE_READY();
    finishAll();
    return SUCCESS;
}
