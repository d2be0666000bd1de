"""``billing ledger export``: a client of the API that writes the ledger to a file."""
