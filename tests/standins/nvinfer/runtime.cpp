#include "runtime.h"

#include "plan.h"

namespace standin {

const MethodTable<Runtime> Runtime::methods_{
    {3, method<&Runtime::deserializeCudaEngine>()},
    {9, method<&Runtime::setErrorRecorder>()},
    {10, method<&Runtime::getErrorRecorder>()},
    {11, method<&Runtime::getLogger>()},
};

Runtime::Runtime(Logger* logger, int32_t version)
    : ApiObject(methods_.functions(), this), logger_(logger), version_(version) {}

void* Runtime::deserializeCudaEngine(const void* data, size_t size) {
    const int32_t written = planVersion(std::string(static_cast<const char*>(data), size));
    if (written == 0)
        say(logger_, SEVERITY_ERROR, "these bytes are no plan");
    else if (written != version_)
        say(logger_, SEVERITY_ERROR, "the plan is of version " + std::to_string(written) + ", this library of " +
                                         std::to_string(version_));
    else
        say(logger_, SEVERITY_ERROR, "a stand-in plan has no engine in it");
    return nullptr;
}

}  // namespace standin
