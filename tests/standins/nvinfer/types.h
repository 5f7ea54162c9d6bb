// Plain values of TensorRT's interface, and the two interfaces that the caller implements for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace standin {

constexpr int32_t MAX_DIMENSIONS = 8;

struct Dims {
    int32_t count = 0;
    int64_t sizes[MAX_DIMENSIONS] = {};
};

enum DataType : int32_t { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3, BOOL = 4, UINT8 = 5, BF16 = 7, INT64 = 8 };

enum BuilderFlag : int32_t { FLAG_FP16 = 0, FLAG_INT8 = 1, FLAG_TF32 = 6 };

enum NetworkFlag : int32_t { NETWORK_STRONGLY_TYPED = 1 };

enum Severity : int32_t { SEVERITY_ERROR = 1, SEVERITY_WARNING = 2, SEVERITY_INFO = 3 };

// The caller's logger: only its first method is known to us.
class Logger {
public:
    virtual void log(int32_t severity, const char* message) = 0;

protected:
    ~Logger() = default;
};

struct InterfaceInfo {
    const char* kind;
    int32_t major;
    int32_t minor;
};

// The caller's calibrator, in the order of its vtable. The genuine bindings implement it in C++ ("trampolines")
// and call the methods of the Python subclass.
class Calibrator {
public:
    virtual int32_t apiLanguage() const = 0;
    virtual InterfaceInfo interfaceInfo() const = 0;
    virtual ~Calibrator() = default;
    virtual int32_t getBatchSize() const = 0;
    virtual bool getBatch(void* bindings[], const char* names[], int32_t count) = 0;
    virtual const void* readCalibrationCache(size_t& length) = 0;
    virtual void writeCalibrationCache(const void* data, size_t length) = 0;
    virtual int32_t getAlgorithm() = 0;
};

inline void say(Logger* logger, Severity severity, const std::string& message) {
    logger->log(severity, ("[stand-in] " + message).c_str());
}

}  // namespace standin
