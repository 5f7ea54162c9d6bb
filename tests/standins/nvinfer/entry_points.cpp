// The exported functions: all that the genuine bindings import from libnvinfer, libnvinfer_plugin and
// libnvonnxparser. One library answers for the three.
#include "builder.h"
#include "network.h"
#include "onnx_parser.h"
#include "runtime.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace standin;

namespace {
int32_t bindingsVersion = 0;  // given by the bindings with each object they ask for
}

EXPORT void* createInferBuilder_INTERNAL(void* logger, int32_t version) {
    bindingsVersion = version;
    return static_cast<ApiObject*>(new Builder(static_cast<Logger*>(logger), version));
}

EXPORT void* createInferRuntime_INTERNAL(void* logger, int32_t version) {
    bindingsVersion = version;
    return static_cast<ApiObject*>(new Runtime(static_cast<Logger*>(logger), version));
}

EXPORT void* createNvOnnxParser_INTERNAL(void* network, void* logger, int32_t) {
    auto* definition = static_cast<Network*>(static_cast<ApiObject*>(network));
    return new OnnxParser(*definition, static_cast<Logger*>(logger));
}

EXPORT int32_t getInferLibVersion() { return bindingsVersion; }

EXPORT int32_t getNvOnnxParserVersion() { return bindingsVersion; }

EXPORT bool initLibNvInferPlugins(void*, const char*) { return true; }

// No refitter and no plugins here.
EXPORT void* createInferRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
EXPORT void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
EXPORT void* getBuilderPluginRegistry(int32_t) { return nullptr; }
EXPORT void* getPluginRegistry() { return nullptr; }
