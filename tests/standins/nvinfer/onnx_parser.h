// The ONNX parser's interface. Unlike the classes of api_object.h it is a plain abstract class, so its vtable is
// written as C++: the order of the virtual functions is the binary interface, and must not change.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "network.h"

namespace standin {

enum ParserErrorCode : int32_t { MODEL_DESERIALIZE_FAILED = 3, UNSUPPORTED_NODE = 8 };

class ParserError {
public:
    ParserError(ParserErrorCode code, std::string text, int32_t node, std::string name, std::string operation);

    virtual int32_t code() const { return code_; }
    virtual const char* desc() const { return text_.c_str(); }
    virtual const char* file() const { return "stand-in"; }
    virtual int32_t line() const { return 0; }
    virtual const char* func() const { return "parse"; }
    virtual int32_t node() const { return node_; }
    virtual const char* nodeName() const { return name_.c_str(); }
    virtual const char* nodeOperator() const { return operation_.c_str(); }
    virtual const char* const* localFunctionStack() const { return nullptr; }
    virtual int32_t localFunctionStackSize() const { return 0; }
    virtual ~ParserError() = default;

private:
    ParserErrorCode code_;
    std::string text_;
    int32_t node_;
    std::string name_;
    std::string operation_;
};

class OnnxParser {
public:
    OnnxParser(Network& network, Logger* logger) : network_(network), logger_(logger) {}

    virtual bool parse(const void* model, size_t bytes, const char* path);
    virtual bool parseFromFile(const char* path, int32_t verbosity);
    virtual bool supportsModel(const void*, size_t, void*, const char*) { return missing("supports_model"); }
    virtual bool parseWithWeightDescriptors(const void* model, size_t bytes) { return parse(model, bytes, nullptr); }
    virtual bool supportsOperator(const char*) const { return true; }
    virtual int32_t getNbErrors() const { return static_cast<int32_t>(errors_.size()); }
    virtual const ParserError* getError(int32_t index) const;
    virtual void clearErrors() { errors_.clear(); }
    virtual ~OnnxParser() = default;
    virtual const char* const* getUsedVCPluginLibraries(int64_t& count) const;
    virtual void setFlags(uint32_t flags) { flags_ = flags; }
    virtual uint32_t getFlags() const { return flags_; }
    virtual void clearFlag(int32_t flag) { flags_ &= ~(1U << flag); }
    virtual void setFlag(int32_t flag) { flags_ |= 1U << flag; }
    virtual bool getFlag(int32_t flag) const { return flags_ >> flag & 1; }
    virtual Tensor* getLayerOutputTensor(const char* layer, int64_t index);
    virtual bool supportsModelV2(const void*, size_t, const char*) { return missing("supports_model_v2"); }
    virtual int64_t getNbSubgraphs() { return 0; }
    virtual bool isSubgraphSupported(int64_t) { return missing("is_subgraph_supported"); }
    virtual int64_t* getSubgraphNodes(int64_t, int64_t& length);
    virtual bool loadModelProto(const void*, size_t, const char*) { return missing("load_model_proto"); }
    virtual bool loadInitializer(const char*, const void*, size_t) { return missing("load_initializer"); }
    virtual bool parseModelProto() { return missing("parse_model_proto"); }
    virtual bool setBuilderConfig(const void*) { return true; }

private:
    void fail(ParserErrorCode code, const std::string& text, int32_t node = -1, const std::string& name = "",
              const std::string& operation = "");
    bool missing(const char* function) const;

    Network& network_;
    Logger* logger_;
    std::vector<std::unique_ptr<ParserError>> errors_;
    uint32_t flags_ = 1;  // NATIVE_INSTANCENORM, as in TensorRT 10
};

}  // namespace standin
