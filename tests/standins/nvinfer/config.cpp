#include "config.h"

#include "network.h"

namespace standin {

// ---- host memory

const MethodTable<HostMemory> HostMemory::methods_{
    {2, method<&HostMemory::data>()},
    {3, method<&HostMemory::size>()},
    {4, method<&HostMemory::type>()},
};

HostMemory::HostMemory(std::string bytes) : ApiObject(methods_.functions(), this), bytes_(std::move(bytes)) {}

// ---- optimization profile

const MethodTable<Profile> Profile::methods_{
    {2, method<&Profile::setDimensions>()},
    {3, method<&Profile::getDimensions>()},
    {7, method<&Profile::setExtraMemoryTarget>()},
    {8, method<&Profile::getExtraMemoryTarget>()},
    {9, method<&Profile::isValid>()},
};

Profile::Profile() : ApiObject(methods_.functions(), this) {}

bool Profile::setDimensions(const char* input, int32_t point, const Dims& shape) {
    for (int32_t axis = 0; axis < shape.count; ++axis)
        if (shape.sizes[axis] < 0) return false;
    for (const auto& [otherPoint, other] : shapes_[input]) {
        if (other.count != shape.count) return false;
        for (int32_t axis = 0; axis < shape.count; ++axis) {
            if (otherPoint < point && other.sizes[axis] > shape.sizes[axis]) return false;
            if (otherPoint > point && other.sizes[axis] < shape.sizes[axis]) return false;
        }
    }
    shapes_[input][point] = shape;
    return true;
}

Dims Profile::getDimensions(const char* input, int32_t point) const {
    Dims unset;
    unset.count = -1;
    const auto found = shapes_.find(input);
    if (found == shapes_.end()) return unset;
    const auto shape = found->second.find(point);
    return shape == found->second.end() ? unset : shape->second;
}

bool Profile::setExtraMemoryTarget(float target) {
    extraMemoryTarget_ = target;
    return target >= 0 && target <= 1;
}

bool Profile::isValid() const {
    for (const auto& [input, points] : shapes_)
        if (points.size() != 3) return false;
    return true;
}

// ---- timing cache

const MethodTable<TimingCache> TimingCache::methods_{
    {2, method<&TimingCache::serialize>()},
    {3, method<&TimingCache::combine>()},
    {4, method<&TimingCache::reset>()},
};

TimingCache::TimingCache(std::string bytes) : ApiObject(methods_.functions(), this), bytes_(std::move(bytes)) {}

bool TimingCache::combine(const TimingCache& other, bool) {
    bytes_ += other.bytes_;
    return true;
}

bool TimingCache::reset() {
    bytes_.clear();
    return true;
}

// ---- builder configuration

const MethodTable<Config> Config::methods_{
    {2, method<&Config::set<Setting::AVERAGE_TIMING_ITERATIONS>>()},
    {3, method<&Config::get<Setting::AVERAGE_TIMING_ITERATIONS>>()},
    {4, method<&Config::set<Setting::ENGINE_CAPABILITY>>()},
    {5, method<&Config::get<Setting::ENGINE_CAPABILITY>>()},
    {6, method<&Config::setInt8Calibrator>()},
    {7, method<&Config::getInt8Calibrator>()},
    {8, method<&Config::setFlags>()},
    {9, method<&Config::getFlags>()},
    {10, method<&Config::clearFlag>()},
    {11, method<&Config::setFlag>()},
    {12, method<&Config::getFlag>()},
    {17, method<&Config::canRunOnDLA>()},
    {18, method<&Config::set<Setting::DLA_CORE>>()},
    {19, method<&Config::get<Setting::DLA_CORE>>()},
    {20, method<&Config::set<Setting::DEFAULT_DEVICE_TYPE>>()},
    {21, method<&Config::get<Setting::DEFAULT_DEVICE_TYPE>>()},
    {23, method<&Config::setProfileStream>()},
    {24, method<&Config::getProfileStream>()},
    {25, method<&Config::addOptimizationProfile>()},
    {26, method<&Config::getNbOptimizationProfiles>()},
    {27, method<&Config::set<Setting::PROFILING_VERBOSITY>>()},
    {28, method<&Config::get<Setting::PROFILING_VERBOSITY>>()},
    {31, method<&Config::setCalibrationProfile>()},
    {32, method<&Config::getCalibrationProfile>()},
    {33, method<&Config::set<Setting::QUANTIZATION_FLAGS>>()},
    {34, method<&Config::get<Setting::QUANTIZATION_FLAGS>>()},
    {38, method<&Config::set<Setting::TACTIC_SOURCES>>()},
    {39, method<&Config::get<Setting::TACTIC_SOURCES>>()},
    {40, method<&Config::createTimingCache>()},
    {41, method<&Config::setTimingCache>()},
    {42, method<&Config::getTimingCache>()},
    {43, method<&Config::setMemoryPoolLimit>()},
    {44, method<&Config::getMemoryPoolLimit>()},
    {45, method<&Config::setPreviewFeature>()},
    {46, method<&Config::getPreviewFeature>()},
    {47, method<&Config::set<Setting::OPTIMIZATION_LEVEL>>()},
    {48, method<&Config::get<Setting::OPTIMIZATION_LEVEL>>()},
    {49, method<&Config::set<Setting::HARDWARE_COMPATIBILITY>>()},
    {50, method<&Config::get<Setting::HARDWARE_COMPATIBILITY>>()},
    {54, method<&Config::set<Setting::MAX_AUXILIARY_STREAMS>>()},
    {55, method<&Config::get<Setting::MAX_AUXILIARY_STREAMS>>()},
    {56, method<&Config::setProgressMonitor>()},
    {57, method<&Config::getProgressMonitor>()},
    {58, method<&Config::set<Setting::RUNTIME_PLATFORM>>()},
    {59, method<&Config::get<Setting::RUNTIME_PLATFORM>>()},
};

Config::Config()
    : ApiObject(methods_.functions(), this),
      settings_{{Setting::AVERAGE_TIMING_ITERATIONS, 1},
                {Setting::DLA_CORE, -1},
                {Setting::OPTIMIZATION_LEVEL, 3},
                {Setting::MAX_AUXILIARY_STREAMS, -1}} {}

int32_t Config::addOptimizationProfile(const Profile* profile) {
    if (!profile->isValid()) return -1;
    profiles_.push_back(profile);
    return getNbOptimizationProfiles() - 1;
}

bool Config::setCalibrationProfile(const Profile* profile) {
    calibrationProfile_ = profile;
    return profile->isValid();
}

size_t Config::getMemoryPoolLimit(int32_t pool) const {
    const auto found = pools_.find(pool);
    return found == pools_.end() ? 0 : found->second;
}

// A DLA computes in FP16 and INT8 only.
bool Config::canRunOnDLA(const Layer* layer) const {
    const Tensor* output = layer->getNbOutputs() ? layer->getOutput(0) : nullptr;
    return output && (output->getType() == HALF || output->getType() == INT8);
}

TimingCache* Config::createTimingCache(const void* data, size_t size) const {
    return new TimingCache(std::string(static_cast<const char*>(data), size));
}

bool Config::setTimingCache(const TimingCache& cache, bool) {
    timingCache_ = std::make_unique<TimingCache>(cache.bytes());
    return true;
}

TimingCache* Config::getTimingCache() const {
    return timingCache_ ? new TimingCache(timingCache_->bytes()) : nullptr;
}

bool Config::getPreviewFeature(int32_t feature) const {
    const auto found = previewFeatures_.find(feature);
    return found != previewFeatures_.end() && found->second;
}

void Config::ensureTimingCache() {
    if (!timingCache_ || timingCache_->bytes().empty())
        timingCache_ = std::make_unique<TimingCache>("stand-in timing cache");
}

}  // namespace standin
