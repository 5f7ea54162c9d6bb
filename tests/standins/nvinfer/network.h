// The network: tensors, layers and the definition that owns them. No arithmetic: a layer is a name and a type.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api_object.h"
#include "types.h"

namespace standin {

class Builder;

class Tensor : public ApiObject {
public:
    static constexpr const char* apiName = "ITensor";
    Tensor(std::string name, DataType type, const Dims& shape, bool isInput);

    const char* getName() const { return name_.c_str(); }
    void setName(const char* name) { name_ = name; }
    Dims getDimensions() const { return shape_; }
    void setDimensions(const Dims& shape) { shape_ = shape; }
    int32_t getType() const { return type_; }
    void setType(int32_t type) { type_ = static_cast<DataType>(type); }
    bool isNetworkInput() const { return isInput_; }
    bool isNetworkOutput() const { return isOutput_; }
    void markOutput(bool isOutput) { isOutput_ = isOutput; }

    bool setDynamicRange(float low, float high);
    bool dynamicRangeIsSet() const { return hasRange_; }
    void resetDynamicRange() { hasRange_ = false; }
    float getDynamicRangeMin() const { return low_; }
    float getDynamicRangeMax() const { return high_; }

    int32_t getLocation() const { return location_; }
    void setLocation(int32_t location) { location_ = location; }
    uint32_t getAllowedFormats() const { return formats_; }
    void setAllowedFormats(uint32_t formats) { formats_ = formats; }
    bool isShapeTensor() const { return false; }
    bool isExecutionTensor() const { return true; }

private:
    static const MethodTable<Tensor> methods_;
    std::string name_;
    DataType type_;
    Dims shape_;
    bool isInput_;
    bool isOutput_ = false;
    bool hasRange_ = false;
    float low_ = 0, high_ = 0;
    int32_t location_ = 0;
    uint32_t formats_ = 1;  // linear
};

enum LayerType : int32_t { LAYER_PLUGIN = 10, LAYER_IDENTITY = 20, LAYER_QUANTIZE = 32, LAYER_DEQUANTIZE = 33 };

class Layer : public ApiObject {
public:
    static constexpr const char* apiName = "ILayer";
    Layer(std::string name, int32_t type, std::vector<Tensor*> inputs, std::vector<Tensor*> outputs);

    int32_t getType() const { return type_; }
    const char* getName() const { return name_.c_str(); }
    void setName(const char* name) { name_ = name; }
    int32_t getNbInputs() const { return static_cast<int32_t>(inputs_.size()); }
    Tensor* getInput(int32_t index) const;
    int32_t getNbOutputs() const { return static_cast<int32_t>(outputs_.size()); }
    Tensor* getOutput(int32_t index) const;
    int32_t getPrecision() const { return precision_; }
    void setPrecision(int32_t type);
    bool precisionIsSet() const { return hasPrecision_; }
    void resetPrecision() { hasPrecision_ = false; }
    void setOutputType(int32_t index, int32_t type);
    int32_t getOutputType(int32_t index) const;
    const char* getMetadata() const { return metadata_.c_str(); }
    void setMetadata(const char* text) { metadata_ = text; }

private:
    static const MethodTable<Layer> methods_;
    std::string name_;
    int32_t type_;
    std::vector<Tensor*> inputs_;  // an input may be null: an initializer, or left out
    std::vector<Tensor*> outputs_;
    bool hasPrecision_ = false;
    int32_t precision_ = FLOAT;
    std::string metadata_;
};

class Network : public ApiObject {
public:
    static constexpr const char* apiName = "INetworkDefinition";
    Network(Builder* builder, uint32_t flags);

    Tensor* addInput(const char* name, int32_t type, const Dims& shape);
    void markOutput(Tensor& tensor);
    void unmarkOutput(Tensor& tensor);
    Layer* addIdentity(Tensor& input);
    int32_t getNbLayers() const { return static_cast<int32_t>(layers_.size()); }
    Layer* getLayer(int32_t index) const;
    int32_t getNbInputs() const { return static_cast<int32_t>(inputs_.size()); }
    Tensor* getInput(int32_t index) const;
    int32_t getNbOutputs() const { return static_cast<int32_t>(outputs_.size()); }
    Tensor* getOutput(int32_t index) const;
    const char* getName() const { return name_.c_str(); }
    void setName(const char* name) { name_ = name; }
    bool hasImplicitBatchDimension() const { return false; }
    Builder* getBuilder() const { return builder_; }
    uint32_t getFlags() const { return flags_; }
    bool getFlag(int32_t flag) const { return flags_ >> flag & 1; }

    // For the parser.
    Tensor* addTensor(const std::string& name, DataType type, const Dims& shape);
    Layer* addLayer(const std::string& name, int32_t type, std::vector<Tensor*> in, std::vector<Tensor*> out);

    const std::vector<Tensor*>& inputs() const { return inputs_; }
    const std::vector<Tensor*>& outputs() const { return outputs_; }
    const std::vector<std::unique_ptr<Tensor>>& tensors() const { return tensors_; }
    const std::vector<std::unique_ptr<Layer>>& layers() const { return layers_; }

private:
    static const MethodTable<Network> methods_;
    Builder* builder_;
    uint32_t flags_;
    std::string name_ = "Unnamed Network 0";
    std::vector<std::unique_ptr<Tensor>> tensors_;
    std::vector<std::unique_ptr<Layer>> layers_;
    std::vector<Tensor*> inputs_;
    std::vector<Tensor*> outputs_;
};

}  // namespace standin
