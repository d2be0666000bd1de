"""Generated from protos/third_party/buf/validate by `make generate`."""
