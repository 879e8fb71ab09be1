"""Record folders in the style of the public 16 MB challenge: true ones, broken ones, ones without evidence."""
