// What a calibrator put into device memory, as the libcuda of the process shows it.
#pragma once

#include <cstddef>
#include <vector>

namespace standin {

// The bytes at `start`: in place with the libcuda stand-in, whose device memory is host memory, and without any libcuda;
// copied to `copy` by the driver with a genuine libcuda, and with STANDIN_NVINFER_COPY. Null when they cannot be read.
const void* readDevice(const void* start, size_t bytes, std::vector<char>& copy);

}  // namespace standin
