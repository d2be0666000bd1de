"""Generated from protos/invoicing/v1 by `make generate`."""
