#include "onnx_reader.h"

#include <cstdint>

namespace standin {

namespace {

// One field of a protobuf message: a number (varint) or bytes (text, nested message).
struct Field {
    uint64_t number = 0;
    uint64_t value = 0;
    std::string_view bytes;
};

// Walks the fields of one message, in the order of the file.
class Fields {
public:
    explicit Fields(std::string_view message) : rest_(message) {}

    bool next(Field& field) {
        if (rest_.empty()) return false;
        const uint64_t key = varint();
        field = Field{key >> 3, 0, {}};
        switch (key & 7) {
            case 0: field.value = varint(); break;
            case 1: take(8); break;
            case 2: field.bytes = take(varint()); break;
            case 5: take(4); break;
            default: throw OnnxError("not a protobuf message");
        }
        if (field.number == 0) throw OnnxError("not a protobuf message");
        return true;
    }

private:
    std::string_view take(uint64_t count) {
        if (count > rest_.size()) throw OnnxError("the message is cut short");
        const std::string_view taken = rest_.substr(0, count);
        rest_.remove_prefix(count);
        return taken;
    }

    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<uint8_t>(take(1)[0]);
            value |= uint64_t{byte & 0x7FU} << shift;
            if (byte < 0x80) return value;
        }
        throw OnnxError("a number is too long");
    }

    std::string_view rest_;
};

// ONNX's TensorProto.DataType -> TensorRT's DataType.
DataType toDataType(uint64_t onnxType) {
    switch (onnxType) {
        case 2: return UINT8;
        case 3: return INT8;
        case 6: return INT32;
        case 7: return INT64;
        case 9: return BOOL;
        case 10: return HALF;
        case 16: return BF16;
        default: return FLOAT;
    }
}

Dims readShape(std::string_view message) {  // TensorShapeProto
    Dims shape;
    Field dimension, part;
    for (Fields fields(message); fields.next(dimension);) {
        if (dimension.number != 1) continue;
        if (shape.count == MAX_DIMENSIONS) throw OnnxError("a shape has more than 8 dimensions");
        int64_t size = -1;  // a name, or nothing: dynamic
        for (Fields parts(dimension.bytes); parts.next(part);)
            if (part.number == 1) size = static_cast<int64_t>(part.value);
        shape.sizes[shape.count++] = size;
    }
    return shape;
}

OnnxValue readValue(std::string_view message) {  // ValueInfoProto: name 1, type 2
    OnnxValue value;
    Field field, type, part;
    for (Fields fields(message); fields.next(field);) {
        if (field.number == 1) value.name = field.bytes;
        if (field.number != 2) continue;
        for (Fields types(field.bytes); types.next(type);) {  // TypeProto: tensor_type 1
            if (type.number != 1) continue;
            for (Fields parts(type.bytes); parts.next(part);) {  // elem_type 1, shape 2
                if (part.number == 1) value.type = toDataType(part.value);
                if (part.number == 2) value.shape = readShape(part.bytes);
            }
        }
    }
    return value;
}

OnnxNode readNode(std::string_view message) {
    OnnxNode node;
    Field field;
    for (Fields fields(message); fields.next(field);) {
        switch (field.number) {
            case 1: node.inputs.emplace_back(field.bytes); break;
            case 2: node.outputs.emplace_back(field.bytes); break;
            case 3: node.name = field.bytes; break;
            case 4: node.operation = field.bytes; break;
            case 7: node.domain = field.bytes; break;
            default: break;
        }
    }
    return node;
}

std::string readTensorName(std::string_view message) {  // TensorProto: name 8
    Field field;
    for (Fields fields(message); fields.next(field);)
        if (field.number == 8) return std::string(field.bytes);
    return "";
}

OnnxGraph readGraph(std::string_view message) {
    OnnxGraph graph;
    Field field;
    for (Fields fields(message); fields.next(field);) {
        switch (field.number) {
            case 1: graph.nodes.push_back(readNode(field.bytes)); break;
            case 2: graph.name = field.bytes; break;
            case 5: graph.initializers.push_back(readTensorName(field.bytes)); break;
            case 11: graph.inputs.push_back(readValue(field.bytes)); break;
            case 12: graph.outputs.push_back(readValue(field.bytes)); break;
            case 13: graph.intermediates.push_back(readValue(field.bytes)); break;
            default: break;
        }
    }
    return graph;
}

}  // namespace

OnnxGraph readOnnx(std::string_view model) {  // ModelProto: graph 7
    Field field;
    for (Fields fields(model); fields.next(field);)
        if (field.number == 7) return readGraph(field.bytes);
    throw OnnxError("the model has no graph");
}

}  // namespace standin
