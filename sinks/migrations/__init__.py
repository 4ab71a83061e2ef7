"""The store's schema: NNNN_name.sql, applied in order, once each. Append-only: a file that was released never changes."""
