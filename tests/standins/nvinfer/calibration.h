// Drives the caller's calibrator in the order in which TensorRT 10 does.
#pragma once

#include <optional>
#include <string>

#include "config.h"
#include "network.h"
#include "types.h"

namespace standin {

struct CalibrationResult {
    std::string source;  // "calibrated" or "cache"
    int batches = 0;
    std::string table;   // the text of the calibration cache in use
};

// `version` is major * 10000 + minor * 100 + patch, as the bindings gave it. Empty: the build has to fail, and the
// logger was told why.
std::optional<CalibrationResult> calibrate(const Network& network, const Config& config, Logger* logger,
                                           int32_t version);

}  // namespace standin
