// What a build is asked for: optimization profiles, the timing cache, the builder configuration, and blobs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api_object.h"
#include "types.h"

namespace standin {

// A block of bytes that Python reads through the buffer protocol.
class HostMemory : public ApiObject {
public:
    static constexpr const char* apiName = "IHostMemory";
    explicit HostMemory(std::string bytes);

    void* data() { return bytes_.data(); }
    size_t size() const { return bytes_.size(); }
    int32_t type() const { return INT8; }

private:
    static const MethodTable<HostMemory> methods_;
    std::string bytes_;
};

enum ProfilePoint : int32_t { PROFILE_MIN = 0, PROFILE_OPT = 1, PROFILE_MAX = 2 };

class Profile : public ApiObject {
public:
    static constexpr const char* apiName = "IOptimizationProfile";
    Profile();

    bool setDimensions(const char* input, int32_t point, const Dims& shape);
    Dims getDimensions(const char* input, int32_t point) const;  // a count of -1: not set
    bool setExtraMemoryTarget(float target);
    float getExtraMemoryTarget() const { return extraMemoryTarget_; }
    bool isValid() const;

private:
    static const MethodTable<Profile> methods_;
    std::map<std::string, std::map<int32_t, Dims>> shapes_;
    float extraMemoryTarget_ = 1.0F;
};

class TimingCache : public ApiObject {
public:
    static constexpr const char* apiName = "ITimingCache";
    explicit TimingCache(std::string bytes);

    HostMemory* serialize() const { return new HostMemory(bytes_); }
    bool combine(const TimingCache& other, bool ignoreMismatch);
    bool reset();
    const std::string& bytes() const { return bytes_; }

private:
    static const MethodTable<TimingCache> methods_;
    std::string bytes_;
};

// Settings that are one number with nothing behind it here.
enum class Setting {
    AVERAGE_TIMING_ITERATIONS,
    ENGINE_CAPABILITY,
    DLA_CORE,
    DEFAULT_DEVICE_TYPE,
    PROFILING_VERBOSITY,
    QUANTIZATION_FLAGS,
    TACTIC_SOURCES,
    OPTIMIZATION_LEVEL,
    HARDWARE_COMPATIBILITY,
    MAX_AUXILIARY_STREAMS,
    RUNTIME_PLATFORM,
};

class Layer;

class Config : public ApiObject {
public:
    static constexpr const char* apiName = "IBuilderConfig";
    Config();

    void setInt8Calibrator(Calibrator* calibrator) { calibrator_ = calibrator; }  // a raw pointer, as in TensorRT
    Calibrator* getInt8Calibrator() const { return calibrator_; }
    void setFlags(uint32_t flags) { flags_ = flags; }
    uint32_t getFlags() const { return flags_; }
    void clearFlag(int32_t flag) { flags_ &= ~(1U << flag); }
    void setFlag(int32_t flag) { flags_ |= 1U << flag; }
    bool getFlag(int32_t flag) const { return flags_ >> flag & 1; }

    int32_t addOptimizationProfile(const Profile* profile);
    int32_t getNbOptimizationProfiles() const { return static_cast<int32_t>(profiles_.size()); }
    bool setCalibrationProfile(const Profile* profile);
    const Profile* getCalibrationProfile() const { return calibrationProfile_; }
    const Profile* firstProfile() const { return profiles_.empty() ? nullptr : profiles_.front(); }

    void setMemoryPoolLimit(int32_t pool, size_t bytes) { pools_[pool] = bytes; }
    size_t getMemoryPoolLimit(int32_t pool) const;
    bool canRunOnDLA(const Layer* layer) const;
    TimingCache* createTimingCache(const void* data, size_t size) const;
    bool setTimingCache(const TimingCache& cache, bool ignoreMismatch);
    TimingCache* getTimingCache() const;  // a copy: the bindings delete what they get
    void setPreviewFeature(int32_t feature, bool enable) { previewFeatures_[feature] = enable; }
    bool getPreviewFeature(int32_t feature) const;
    void setProfileStream(void* stream) { profileStream_ = stream; }
    void* getProfileStream() const { return profileStream_; }
    void setProgressMonitor(void* monitor) { progressMonitor_ = monitor; }
    void* getProgressMonitor() const { return progressMonitor_; }

    template <Setting setting>
    bool set(int32_t value) {  // some of TensorRT's setters answer a bool, the others nothing
        settings_[setting] = value;
        return true;
    }
    template <Setting setting>
    int32_t get() const {
        const auto found = settings_.find(setting);
        return found == settings_.end() ? 0 : found->second;
    }

    // A build fills the timing cache, and makes one where the caller set none.
    void ensureTimingCache();

private:
    static const MethodTable<Config> methods_;
    Calibrator* calibrator_ = nullptr;
    uint32_t flags_ = 1U << FLAG_TF32;
    std::vector<const Profile*> profiles_;
    const Profile* calibrationProfile_ = nullptr;
    std::map<int32_t, size_t> pools_;
    std::map<int32_t, bool> previewFeatures_;
    std::map<Setting, int32_t> settings_;
    std::unique_ptr<TimingCache> timingCache_;
    void* profileStream_ = nullptr;
    void* progressMonitor_ = nullptr;
};

}  // namespace standin
