"""What the service knows about billing: pure values and functions, no transport, SQL or clock."""
