"""The RPCs, a file a noun: decode, one call of a use case, encode."""
