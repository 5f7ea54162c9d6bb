// Reads the few things that a network definition needs out of an ONNX file, with no protobuf library.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace standin {

struct OnnxError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct OnnxValue {
    std::string name;
    DataType type = FLOAT;
    Dims shape;
};

struct OnnxNode {
    std::string name;
    std::string operation;
    std::string domain;
    std::vector<std::string> inputs;
    std::vector<std::string> outputs;
};

struct OnnxGraph {
    std::string name;
    std::vector<OnnxNode> nodes;
    std::vector<std::string> initializers;
    std::vector<OnnxValue> inputs;
    std::vector<OnnxValue> outputs;
    std::vector<OnnxValue> intermediates;  // value_info
};

// Throws OnnxError when the bytes are not an ONNX model.
OnnxGraph readOnnx(std::string_view model);

}  // namespace standin
