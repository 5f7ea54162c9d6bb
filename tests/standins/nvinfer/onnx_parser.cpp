#include "onnx_parser.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

#include "onnx_reader.h"

namespace standin {

namespace {

// TensorRT's layer types for the operations that matter here; the rest is called a plugin.
int32_t layerType(const std::string& operation) {
    static const std::map<std::string, int32_t> types = {
        {"Conv", 0},     {"Cast", 1},      {"Relu", 2},     {"Sigmoid", 2},
        {"Clip", 2},     {"MaxPool", 3},   {"AveragePool", 3}, {"GlobalAveragePool", 14},
        {"Softmax", 6},  {"ConvTranspose", 7}, {"Concat", 8}, {"Add", 9},
        {"Sub", 9},      {"Mul", 9},       {"Div", 9},      {"Reshape", 13},
        {"Transpose", 13}, {"Flatten", 13}, {"Gather", 16}, {"MatMul", 17},
        {"Gemm", 17},    {"Constant", 19}, {"Identity", LAYER_IDENTITY}, {"Slice", 22},
        {"QuantizeLinear", LAYER_QUANTIZE}, {"DequantizeLinear", LAYER_DEQUANTIZE},
    };
    const auto found = types.find(operation);
    return found == types.end() ? LAYER_PLUGIN : found->second;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

ParserError::ParserError(ParserErrorCode code, std::string text, int32_t node, std::string name,
                         std::string operation)
    : code_(code), text_(std::move(text)), node_(node), name_(std::move(name)), operation_(std::move(operation)) {}

const ParserError* OnnxParser::getError(int32_t index) const {
    return index >= 0 && index < getNbErrors() ? errors_[static_cast<size_t>(index)].get() : nullptr;
}

void OnnxParser::fail(ParserErrorCode code, const std::string& text, int32_t node, const std::string& name,
                      const std::string& operation) {
    errors_.push_back(std::make_unique<ParserError>(code, text, node, name, operation));
    say(logger_, SEVERITY_ERROR, text);
}

bool OnnxParser::missing(const char* function) const {
    say(logger_, SEVERITY_ERROR, std::string("OnnxParser.") + function + " is not there");
    return false;
}

bool OnnxParser::parseFromFile(const char* path, int32_t) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail(MODEL_DESERIALIZE_FAILED, std::string("cannot open ") + path);
        return false;
    }
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    return parse(bytes.data(), bytes.size(), path);
}

bool OnnxParser::parse(const void* model, size_t bytes, const char*) {
    OnnxGraph graph;
    try {
        graph = readOnnx({static_cast<const char*>(model), bytes});
    } catch (const OnnxError& error) {
        fail(MODEL_DESERIALIZE_FAILED, std::string("failed to parse the ONNX model: ") + error.what());
        return false;
    }
    for (size_t index = 0; index < graph.nodes.size(); ++index) {
        const OnnxNode& node = graph.nodes[index];
        if (node.domain.empty() || node.domain == "ai.onnx") continue;
        fail(UNSUPPORTED_NODE, "no importer for " + node.domain + "::" + node.operation, static_cast<int32_t>(index),
             node.name, node.operation);
        return false;
    }

    network_.setName(graph.name.c_str());
    std::map<std::string, Tensor*> tensors;
    for (const OnnxValue& input : graph.inputs)
        if (!contains(graph.initializers, input.name))
            tensors[input.name] = network_.addInput(input.name.c_str(), input.type, input.shape);

    std::map<std::string, const OnnxValue*> known;  // what the file says of tensors between the nodes
    for (const OnnxValue& value : graph.intermediates) known[value.name] = &value;
    for (const OnnxValue& value : graph.outputs) known[value.name] = &value;
    for (const OnnxNode& node : graph.nodes) {
        std::vector<Tensor*> inputs, outputs;
        for (const std::string& name : node.inputs) {
            const auto found = tensors.find(name);
            inputs.push_back(found == tensors.end() ? nullptr : found->second);
        }
        for (const std::string& name : node.outputs) {
            const auto value = known.find(name);
            const OnnxValue unknown;
            const OnnxValue& described = value == known.end() ? unknown : *value->second;
            tensors[name] = network_.addTensor(name, described.type, described.shape);
            outputs.push_back(tensors[name]);
        }
        const std::string name = node.name.empty() ? "node_of_" + node.outputs.at(0) : node.name;
        network_.addLayer(name, layerType(node.operation), inputs, outputs);
    }
    for (const OnnxValue& output : graph.outputs)
        if (Tensor* tensor = tensors[output.name]) network_.markOutput(*tensor);
    return true;
}

Tensor* OnnxParser::getLayerOutputTensor(const char* layer, int64_t index) {
    for (const auto& candidate : network_.layers())
        if (std::string(candidate->getName()) == layer) return candidate->getOutput(static_cast<int32_t>(index));
    return nullptr;
}

const char* const* OnnxParser::getUsedVCPluginLibraries(int64_t& count) const {
    count = 0;
    return nullptr;
}

int64_t* OnnxParser::getSubgraphNodes(int64_t, int64_t& length) {
    length = 0;
    return nullptr;
}

}  // namespace standin
