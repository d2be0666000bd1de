"""``billing usage import``: a client of the API that turns lines of a file into usage events."""
