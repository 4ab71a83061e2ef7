"""A real one-node Kafka from Maven artifacts, for benches and integration tests on machines without containers."""
