"""Explanations of charges and balances on the command line: what the API tells, as a tree."""
