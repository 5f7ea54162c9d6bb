#include "calibration.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <vector>

#include "device_memory.h"

namespace standin {

namespace {

constexpr float INT8_LARGEST = 127.0F;

const char* algorithmName(int32_t algorithm) {
    switch (algorithm) {
        case 0: return "LegacyCalibration";
        case 1: return "EntropyCalibration";
        case 2: return "EntropyCalibration2";
        case 3: return "MinMaxCalibration";
        default: return "UnknownCalibration";
    }
}

std::string header(int32_t version, int32_t algorithm) {
    return "TRT-" + std::to_string(version) + "-" + algorithmName(algorithm);
}

// Since TensorRT 10 a version is major * 10000 + ...; before, major * 1000 + ...
int32_t majorVersion(int32_t version) { return version >= 100000 ? version / 10000 : version / 1000; }

// A cache is used when the major version and the algorithm of its first line are those of this build.
bool cacheFits(const std::string& cache, int32_t version, int32_t algorithm) {
    std::istringstream line(cache.substr(0, cache.find_first_of("\r\n")));
    std::string magic, number, name;
    std::getline(line, magic, '-');
    std::getline(line, number, '-');
    std::getline(line, name);
    return magic == "TRT" && name == algorithmName(algorithm) &&
           majorVersion(std::atoi(number.c_str())) == majorVersion(version);
}

// The names in a cache: what stands before the last ": " of each line after the first.
std::map<std::string, std::string> cacheEntries(const std::string& cache) {
    std::map<std::string, std::string> entries;
    std::istringstream lines(cache);
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
        const size_t separator = line.rfind(": ");
        if (separator != std::string::npos) entries[line.substr(0, separator)] = line.substr(separator + 2);
    }
    return entries;
}

std::string scaleLine(const std::string& name, float amax) {
    const float scale = amax / INT8_LARGEST;
    uint32_t bits = 0;
    std::memcpy(&bits, &scale, sizeof bits);
    char hexadecimal[9];
    std::snprintf(hexadecimal, sizeof hexadecimal, "%08x", bits);
    return name + ": " + hexadecimal + "\n";
}

// Bytes of one element as the calibrator delivers it: floating-point inputs always come as float32.
size_t elementBytes(int32_t type) {
    switch (type) {
        case INT8:
        case BOOL:
        case UINT8: return 1;
        case INT64: return 8;
        default: return 4;
    }
}

bool isFloatingPoint(int32_t type) { return type == FLOAT || type == HALF || type == BF16; }

// The shape that calibration runs at: the input's own, or OPT of the calibration profile where it is dynamic.
Dims calibrationShape(const Tensor& input, const Profile* profile) {
    const Dims shape = input.getDimensions();
    const bool dynamic = std::any_of(shape.sizes, shape.sizes + shape.count, [](int64_t size) { return size < 0; });
    if (!dynamic) return shape;
    Dims unset;
    unset.count = -1;
    return profile ? profile->getDimensions(input.getName(), PROFILE_OPT) : unset;
}

// What one calibration needs to know of an input, and what it learns.
struct Observed {
    const Tensor* tensor;
    size_t elements;
    float amax = 0;
};

// The largest magnitude so far; a NaN stays.
float extend(float amax, const float* values, size_t count) {
    for (size_t index = 0; index < count && !std::isnan(amax); ++index)
        if (!(std::fabs(values[index]) <= amax)) amax = std::fabs(values[index]);
    return amax;
}

std::optional<std::vector<Observed>> observedInputs(const Network& network, const Config& config, Logger* logger) {
    const Profile* profile = config.getCalibrationProfile();
    if (!profile && config.firstProfile()) {
        profile = config.firstProfile();
        say(logger, SEVERITY_WARNING, "no calibration profile is set: calibrating with optimization profile 0");
    }
    std::vector<Observed> inputs;
    for (const Tensor* input : network.inputs()) {
        const Dims shape = calibrationShape(*input, profile);
        if (shape.count < 0) {
            say(logger, SEVERITY_ERROR, std::string("input ") + input->getName() +
                                            " is dynamic and no profile says at which shape to calibrate");
            return std::nullopt;
        }
        size_t elements = 1;
        for (int32_t axis = 0; axis < shape.count; ++axis) elements *= static_cast<size_t>(shape.sizes[axis]);
        inputs.push_back({input, elements});
    }
    if (std::getenv("STANDIN_NVINFER_REVERSE_NAMES")) std::reverse(inputs.begin(), inputs.end());
    return inputs;
}

// Reads batches until the calibrator ends them. Answers how many came, or -1 when one could not be read.
int readBatches(Calibrator& calibrator, std::vector<Observed>& inputs, Logger* logger) {
    std::vector<const char*> names;
    for (const Observed& input : inputs) names.push_back(input.tensor->getName());
    std::vector<void*> bindings(inputs.size(), nullptr);
    std::vector<char> copy;
    int batches = 0;
    while (calibrator.getBatch(bindings.data(), names.data(), static_cast<int32_t>(names.size()))) {
        for (size_t index = 0; index < inputs.size(); ++index) {
            Observed& input = inputs[index];
            const int32_t type = input.tensor->getType();
            const void* values = readDevice(bindings[index], input.elements * elementBytes(type), copy);
            if (!values) {
                say(logger, SEVERITY_ERROR, std::string("an illegal memory access was encountered: batch ") +
                                                std::to_string(batches) + " of input " + names[index]);
                return -1;
            }
            if (isFloatingPoint(type))
                input.amax = extend(input.amax, static_cast<const float*>(values), input.elements);
        }
        ++batches;
    }
    return batches;
}

// The ranges of the inputs, and of what identity layers pass on unchanged.
std::string makeTable(const Network& network, const std::vector<Observed>& inputs, const std::string& firstLine) {
    std::map<const Tensor*, float> amax;
    std::string table = firstLine + "\n";
    for (const Tensor* tensor : network.inputs()) {
        const auto input = std::find_if(inputs.begin(), inputs.end(),
                                        [=](const Observed& observed) { return observed.tensor == tensor; });
        if (!isFloatingPoint(tensor->getType())) continue;
        amax[tensor] = input->amax;
        table += scaleLine(tensor->getName(), input->amax);
    }
    for (const auto& layer : network.layers()) {
        const auto source = layer->getType() == LAYER_IDENTITY ? amax.find(layer->getInput(0)) : amax.end();
        if (source == amax.end()) continue;
        amax[layer->getOutput(0)] = source->second;
        table += scaleLine(layer->getOutput(0)->getName(), source->second);
    }
    return table;
}

void warnOfMissing(const Network& network, const std::string& cache, Logger* logger) {
    const auto entries = cacheEntries(cache);
    for (const auto& tensor : network.tensors())
        if (isFloatingPoint(tensor->getType()) && !entries.count(tensor->getName()))
            say(logger, SEVERITY_WARNING, std::string("Missing scale and zero-point for tensor ") +
                                              tensor->getName() + ": it falls back to non-int8");
}

}  // namespace

std::optional<CalibrationResult> calibrate(const Network& network, const Config& config, Logger* logger,
                                           int32_t version) {
    Calibrator& calibrator = *config.getInt8Calibrator();
    if (calibrator.getBatchSize() < 1) {
        say(logger, SEVERITY_ERROR, "get_batch_size must answer 1 or more");
        return std::nullopt;
    }
    const int32_t algorithm = calibrator.getAlgorithm();

    size_t length = 0;
    if (const void* data = calibrator.readCalibrationCache(length); data && length) {
        const std::string cache(static_cast<const char*>(data), length);
        if (cacheFits(cache, version, algorithm)) {
            warnOfMissing(network, cache, logger);
            return CalibrationResult{"cache", 0, cache};
        }
        say(logger, SEVERITY_WARNING, "the calibration cache is of another version or algorithm: calibrating again");
    }

    auto inputs = observedInputs(network, config, logger);
    if (!inputs) return std::nullopt;
    const int batches = readBatches(calibrator, *inputs, logger);
    if (batches < 0) return std::nullopt;
    if (batches == 0) {
        say(logger, SEVERITY_ERROR, "Calibration failure occurred with no scaling factors detected");
        return std::nullopt;
    }
    const std::string table = makeTable(network, *inputs, header(version, algorithm));
    calibrator.writeCalibrationCache(table.data(), table.size());
    return CalibrationResult{"calibrated", batches, table};
}

}  // namespace standin
