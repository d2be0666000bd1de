"""Between the contract's messages and the domain's values, a file a noun."""
