"""What is decided, without I/O: values in, values out."""
