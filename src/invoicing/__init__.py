"""Stubs of the invoicing service, whose contract is not ours."""
