"""Our own small heads on the shared embedding: toxicity, injection; weights with their hashes."""
