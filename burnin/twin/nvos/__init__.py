"""NVOS of a twin's switch trays: who plugs where, drawn from the seed, and `nv`, which says it."""
