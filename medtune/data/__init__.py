"""From a file to packed token ids: readers, map functions, templates, encoding, packing, collation."""
