// The "serialized engine" of the stand-in: a text that says what a builder would have gone by. Never an engine.
#pragma once

#include <cstdlib>
#include <string>

#include "calibration.h"
#include "config.h"
#include "network.h"

namespace standin {

constexpr const char* PLAN_MARK = "TRT_PTQ STAND-IN PLAN, NOT A TENSORRT ENGINE\n";

// `ranges` is the calibration table in use; empty lines are left out of the text.
inline std::string planText(const Network& network, const Config& config, int32_t version,
                            const CalibrationResult& calibration) {
    std::string text = PLAN_MARK;
    text += "version: " + std::to_string(version) + "\n";
    text += "int8: " + std::to_string(config.getFlag(FLAG_INT8)) + "\n";
    text += "fp16: " + std::to_string(config.getFlag(FLAG_FP16)) + "\n";
    text += "source: " + calibration.source + "\n";
    text += "batches: " + std::to_string(calibration.batches) + "\n";
    for (const Tensor* input : network.inputs()) text += std::string("input: ") + input->getName() + "\n";
    for (const Tensor* output : network.outputs()) text += std::string("output: ") + output->getName() + "\n";
    for (const auto& tensor : network.tensors())
        if (tensor->dynamicRangeIsSet())
            text += "dynamic range: " + std::string(tensor->getName()) + ": " +
                    std::to_string(tensor->getDynamicRangeMin()) + " " +
                    std::to_string(tensor->getDynamicRangeMax()) + "\n";
    return text + "table:\n" + calibration.table;
}

// The version that wrote a plan, or 0 when the text is not one of ours.
inline int32_t planVersion(const std::string& text) {
    const std::string start = std::string(PLAN_MARK) + "version: ";
    return text.compare(0, start.size(), start) == 0 ? std::atoi(text.c_str() + start.size()) : 0;
}

}  // namespace standin
