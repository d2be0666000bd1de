"""Generated from protos/billing/v1 by `make generate`."""
