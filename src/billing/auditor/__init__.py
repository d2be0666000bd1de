"""``billing audit``: proves the books of a tenant, over the contract alone."""
