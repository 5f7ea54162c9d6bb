"""Host-memory stand-ins for libcuda and libnvinfer, under the genuine Python packages: see README.md."""
