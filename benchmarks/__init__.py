"""Speed, measured against a floor in the same run. `make bench` runs every figure.

One file a figure; each prints ``figure: NAME ours=... floor=... ratio=... unit=...``.
"""
