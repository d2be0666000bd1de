"""The gRPC transport: from bytes to one call of a service and back."""
