#include "network.h"

#include <algorithm>

namespace standin {

namespace {
template <class Element>
Element* at(const std::vector<Element*>& elements, int32_t index) {
    const bool inside = index >= 0 && static_cast<size_t>(index) < elements.size();
    return inside ? elements[static_cast<size_t>(index)] : nullptr;
}
}  // namespace

// ---- tensor

const MethodTable<Tensor> Tensor::methods_{
    {2, method<&Tensor::setName>()},
    {3, method<&Tensor::getName>()},
    {4, method<&Tensor::setDimensions>()},
    {5, method<&Tensor::getDimensions>()},
    {6, method<&Tensor::setType>()},
    {7, method<&Tensor::getType>()},
    {8, method<&Tensor::setDynamicRange>()},
    {9, method<&Tensor::isNetworkInput>()},
    {10, method<&Tensor::isNetworkOutput>()},
    {13, method<&Tensor::getLocation>()},
    {14, method<&Tensor::setLocation>()},
    {15, method<&Tensor::dynamicRangeIsSet>()},
    {16, method<&Tensor::resetDynamicRange>()},
    {17, method<&Tensor::getDynamicRangeMin>()},
    {18, method<&Tensor::getDynamicRangeMax>()},
    {19, method<&Tensor::setAllowedFormats>()},
    {20, method<&Tensor::getAllowedFormats>()},
    {21, method<&Tensor::isShapeTensor>()},
    {22, method<&Tensor::isExecutionTensor>()},
};

Tensor::Tensor(std::string name, DataType type, const Dims& shape, bool isInput)
    : ApiObject(methods_.functions(), this), name_(std::move(name)), type_(type), shape_(shape), isInput_(isInput) {}

bool Tensor::setDynamicRange(float low, float high) {
    low_ = low;
    high_ = high;
    hasRange_ = true;
    return true;
}

// ---- layer

const MethodTable<Layer> Layer::methods_{
    {2, method<&Layer::getType>()},
    {3, method<&Layer::setName>()},
    {4, method<&Layer::getName>()},
    {5, method<&Layer::getNbInputs>()},
    {6, method<&Layer::getInput>()},
    {7, method<&Layer::getNbOutputs>()},
    {8, method<&Layer::getOutput>()},
    {10, method<&Layer::setPrecision>()},
    {11, method<&Layer::getPrecision>()},
    {12, method<&Layer::precisionIsSet>()},
    {13, method<&Layer::resetPrecision>()},
    {14, method<&Layer::setOutputType>()},
    {15, method<&Layer::getOutputType>()},
    {18, method<&Layer::setMetadata>()},
    {19, method<&Layer::getMetadata>()},
};

Layer::Layer(std::string name, int32_t type, std::vector<Tensor*> inputs, std::vector<Tensor*> outputs)
    : ApiObject(methods_.functions(), this),
      name_(std::move(name)),
      type_(type),
      inputs_(std::move(inputs)),
      outputs_(std::move(outputs)) {}

Tensor* Layer::getInput(int32_t index) const { return at(inputs_, index); }

Tensor* Layer::getOutput(int32_t index) const { return at(outputs_, index); }

void Layer::setPrecision(int32_t type) {
    precision_ = type;
    hasPrecision_ = true;
}

void Layer::setOutputType(int32_t index, int32_t type) {
    if (Tensor* output = getOutput(index)) output->setType(type);
}

int32_t Layer::getOutputType(int32_t index) const {
    const Tensor* output = getOutput(index);
    return output ? output->getType() : FLOAT;
}

// ---- network

const MethodTable<Network> Network::methods_{
    {2, method<&Network::addInput>()},
    {3, method<&Network::markOutput>()},
    {12, method<&Network::getNbLayers>()},
    {13, method<&Network::getLayer>()},
    {14, method<&Network::getNbInputs>()},
    {15, method<&Network::getInput>()},
    {16, method<&Network::getNbOutputs>()},
    {17, method<&Network::getOutput>()},
    {24, method<&Network::addIdentity>()},
    {26, method<&Network::unmarkOutput>()},
    {30, method<&Network::setName>()},
    {31, method<&Network::getName>()},
    {33, method<&Network::hasImplicitBatchDimension>()},
    {63, method<&Network::getBuilder>()},
    {64, method<&Network::getFlags>()},
    {65, method<&Network::getFlag>()},
};

Network::Network(Builder* builder, uint32_t flags)
    : ApiObject(methods_.functions(), this), builder_(builder), flags_(flags) {}

Tensor* Network::addInput(const char* name, int32_t type, const Dims& shape) {
    for (const Tensor* input : inputs_)
        if (std::string(input->getName()) == name) return nullptr;
    tensors_.push_back(std::make_unique<Tensor>(name, static_cast<DataType>(type), shape, true));
    inputs_.push_back(tensors_.back().get());
    return inputs_.back();
}

Tensor* Network::addTensor(const std::string& name, DataType type, const Dims& shape) {
    tensors_.push_back(std::make_unique<Tensor>(name, type, shape, false));
    return tensors_.back().get();
}

Layer* Network::addLayer(const std::string& name, int32_t type, std::vector<Tensor*> in, std::vector<Tensor*> out) {
    layers_.push_back(std::make_unique<Layer>(name, type, std::move(in), std::move(out)));
    return layers_.back().get();
}

// Names as TensorRT makes them for layers that the caller did not name.
Layer* Network::addIdentity(Tensor& input) {
    const std::string name = "(Unnamed Layer* " + std::to_string(layers_.size()) + ") [Identity]";
    Tensor* output = addTensor(name + "_output", static_cast<DataType>(input.getType()), input.getDimensions());
    return addLayer(name, LAYER_IDENTITY, {&input}, {output});
}

void Network::markOutput(Tensor& tensor) {
    tensor.markOutput(true);
    outputs_.push_back(&tensor);
}

void Network::unmarkOutput(Tensor& tensor) {
    tensor.markOutput(false);
    outputs_.erase(std::remove(outputs_.begin(), outputs_.end(), &tensor), outputs_.end());
}

Layer* Network::getLayer(int32_t index) const {
    return index >= 0 && index < getNbLayers() ? layers_[static_cast<size_t>(index)].get() : nullptr;
}

Tensor* Network::getInput(int32_t index) const { return at(inputs_, index); }

Tensor* Network::getOutput(int32_t index) const { return at(outputs_, index); }

}  // namespace standin
