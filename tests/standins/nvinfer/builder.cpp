#include "builder.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "calibration.h"
#include "plan.h"

namespace standin {

const MethodTable<Builder> Builder::methods_{
    {2, method<&Builder::platformHasFastFp16>()},
    {3, method<&Builder::platformHasFastInt8>()},
    {4, method<&Builder::getMaxDLABatchSize>()},
    {5, method<&Builder::getNbDLACores>()},
    {7, method<&Builder::createBuilderConfig>()},
    {8, method<&Builder::createNetworkV2>()},
    {9, method<&Builder::createOptimizationProfile>()},
    {10, method<&Builder::setErrorRecorder>()},
    {11, method<&Builder::getErrorRecorder>()},
    {13, method<&Builder::platformHasTf32>()},
    {14, method<&Builder::buildSerializedNetwork>()},
    {15, method<&Builder::isNetworkSupported>()},
    {16, method<&Builder::getLogger>()},
    {17, method<&Builder::setMaxThreads>()},
    {18, method<&Builder::getMaxThreads>()},
};

Builder::Builder(Logger* logger, int32_t version)
    : ApiObject(methods_.functions(), this), logger_(logger), version_(version) {}

Profile* Builder::createOptimizationProfile() {
    profiles_.push_back(std::make_unique<Profile>());
    return profiles_.back().get();
}

bool Builder::setMaxThreads(int32_t threads) {
    maxThreads_ = threads;
    return threads >= 1;
}

// The mistakes that a builder refuses before it starts.
bool Builder::acceptable(const Network& network, const Config& config) const {
    if (network.getFlag(NETWORK_STRONGLY_TYPED) && (config.getFlag(FLAG_INT8) || config.getFlag(FLAG_FP16))) {
        say(logger_, SEVERITY_ERROR, "a strongly typed network takes no INT8 or FP16 flag");
        return false;
    }
    if (network.outputs().empty()) {
        say(logger_, SEVERITY_ERROR, "the network has no output");
        return false;
    }
    for (const Tensor* input : network.inputs()) {
        const Dims shape = input->getDimensions();
        const bool dynamic =
            std::any_of(shape.sizes, shape.sizes + shape.count, [](int64_t size) { return size < 0; });
        const Profile* profile = config.firstProfile();
        if (dynamic && (!profile || profile->getDimensions(input->getName(), PROFILE_OPT).count < 0)) {
            say(logger_, SEVERITY_ERROR,
                std::string("input ") + input->getName() + " is dynamic and no optimization profile covers it");
            return false;
        }
    }
    return true;
}

// A layer of STANDIN_NVINFER_REFUSE (names, one a line) has no implementation where it reads what was dequantized.
bool Builder::implementable(const Network& network) const {
    const char* refused = std::getenv("STANDIN_NVINFER_REFUSE");
    if (!refused) return true;
    const std::string lines = "\n" + std::string(refused) + "\n";
    std::set<const Tensor*> dequantized;
    for (const auto& layer : network.layers())
        if (layer->getType() == LAYER_DEQUANTIZE) dequantized.insert(layer->getOutput(0));
    for (const auto& layer : network.layers()) {
        if (lines.find("\n" + std::string(layer->getName()) + "\n") == std::string::npos) continue;
        for (int32_t index = 0; index < layer->getNbInputs(); ++index)
            if (dequantized.count(layer->getInput(index))) {
                say(logger_, SEVERITY_ERROR, std::string("IBuilder::buildSerializedNetwork: Error Code 10: Internal "
                    "Error (Could not find any implementation for node ") + layer->getName() + ".)");
                return false;
            }
    }
    return true;
}

HostMemory* Builder::buildSerializedNetwork(Network& network, Config& config) {
    if (!acceptable(network, config) || !implementable(network)) return nullptr;
    config.ensureTimingCache();

    CalibrationResult result{"none", 0, ""};
    const bool explicitQuantization =
        std::any_of(network.layers().begin(), network.layers().end(),
                    [](const auto& layer) { return layer->getType() == LAYER_QUANTIZE; });
    if (explicitQuantization) {
        result.source = "explicit";
        if (config.getInt8Calibrator())
            say(logger_, SEVERITY_WARNING, "the network has Q/DQ layers: the calibrator is not used");
    } else if (config.getFlag(FLAG_INT8)) {
        if (!config.getFlag(FLAG_FP16))
            say(logger_, SEVERITY_WARNING, "INT8 without FP16: layers without INT8 run in FP32");
        if (config.getInt8Calibrator()) {
            auto calibrated = calibrate(network, config, logger_, version_);
            if (!calibrated) return nullptr;
            result = *calibrated;
        }
    }
    return new HostMemory(planText(network, config, version_, result));
}

}  // namespace standin
