#pragma once

#include "api_object.h"
#include "types.h"

namespace standin {

// Looks at plans and refuses them all: a stand-in has no engine to give.
class Runtime : public ApiObject {
public:
    static constexpr const char* apiName = "IRuntime";
    Runtime(Logger* logger, int32_t version);

    void* deserializeCudaEngine(const void* data, size_t size);
    Logger* getLogger() const { return logger_; }
    void setErrorRecorder(void* recorder) { errorRecorder_ = recorder; }
    void* getErrorRecorder() const { return errorRecorder_; }

private:
    static const MethodTable<Runtime> methods_;
    Logger* logger_;
    int32_t version_;
    void* errorRecorder_ = nullptr;
};

}  // namespace standin
