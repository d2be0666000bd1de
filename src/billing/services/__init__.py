"""The use cases: each owns one visible transaction and makes no network call inside it."""
