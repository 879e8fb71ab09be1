"""Record folders in the style of the public 16 MB challenge, to measure a checker of such folders.

`bases.PLAIN`, `clean.CLEAN` and `broken.BASES` are true: no failure may be reported. `broken.BROKEN` holds one
contradiction each, with the family and severity that an examiner would give it. `unverifiable.UNVERIFIABLE` lack
evidence: no failure, at least one claim unverifiable. `folders.write_all` writes any of them to disk.
"""
