"""Holds buf.validate, which generated code imports under this name."""
