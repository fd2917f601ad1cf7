"""Wire formats: bytes in, values out, and the same in every fragmentation."""
