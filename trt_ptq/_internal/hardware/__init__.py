"""The processor, the GPU and the memory that this process may use."""
