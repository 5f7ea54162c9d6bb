#pragma once

#include <memory>
#include <vector>

#include "api_object.h"
#include "config.h"
#include "network.h"
#include "types.h"

namespace standin {

class Builder : public ApiObject {
public:
    static constexpr const char* apiName = "IBuilder";
    Builder(Logger* logger, int32_t version);

    bool platformHasFastFp16() const { return true; }
    bool platformHasFastInt8() const { return true; }
    bool platformHasTf32() const { return true; }
    int32_t getMaxDLABatchSize() const { return 0; }
    int32_t getNbDLACores() const { return 0; }
    Config* createBuilderConfig() { return new Config; }
    Network* createNetworkV2(uint32_t flags) { return new Network(this, flags); }
    Profile* createOptimizationProfile();
    void setErrorRecorder(void* recorder) { errorRecorder_ = recorder; }
    void* getErrorRecorder() const { return errorRecorder_; }
    HostMemory* buildSerializedNetwork(Network& network, Config& config);
    bool isNetworkSupported(const Network&, const Config&) const { return true; }
    Logger* getLogger() const { return logger_; }
    bool setMaxThreads(int32_t threads);
    int32_t getMaxThreads() const { return maxThreads_; }

private:
    bool acceptable(const Network& network, const Config& config) const;
    bool implementable(const Network& network) const;

    static const MethodTable<Builder> methods_;
    Logger* logger_;
    int32_t version_;
    std::vector<std::unique_ptr<Profile>> profiles_;  // Python does not own them
    void* errorRecorder_ = nullptr;
    int32_t maxThreads_ = 1;
};

}  // namespace standin
